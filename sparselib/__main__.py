from sparselib.cli import main

main()
