from sparselib.repro.cli import main

main()
