"""What a notebook must satisfy: a template before it runs, an executed one before it enters the book."""

import ast

from sparselib.repro import parameters as typed


class GateError(ValueError):
    """A notebook does not satisfy the gate; the message lists every complaint."""


def check_template(notebook, model):
    """Raise GateError unless the template has one parameters cell: typed literals, exactly the model's fields."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise GateError(f"{model.notebook}: needs one cell tagged 'parameters', has {len(cells)}")
    names, complaints = [], []
    for node in ast.parse(cells[0].source).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            complaints.append(f"not a typed literal (name: type = value): {ast.unparse(node)}")
            continue
        names.append(node.target.id)
        try:
            ast.literal_eval(node.value)
        except ValueError:
            complaints.append(f"not a literal, so an override would not reach it: {ast.unparse(node)}")
    wanted = list(model.model_fields)
    complaints += [f"parameter without a place in the cell: {n}" for n in wanted if n not in names]
    complaints += [f"not a parameter: {n}" for n in names if n not in wanted]
    complaints += [f"cell {i} has outputs" for i, c in enumerate(notebook.cells) if c.get("outputs")]
    if complaints:
        raise GateError(f"{model.notebook}: " + "; ".join(complaints))


def check_executed(notebook, name, *, published=True):
    """Raise GateError when a notebook failed, stopped early or shows nothing where it should.

    `published` asks for what the book needs on top: figures with label, caption and alt text, and no stray output.
    """
    complaints = []
    if notebook.metadata.get("papermill", {}).get("exception"):
        complaints.append("papermill reports an exception")
    figures = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.source.strip() and cell.get("execution_count") is None:
            complaints.append(f"cell {index} was not run")
        if "figure" in cell.metadata.get("tags", []) and not any(_about(o) for o in cell.outputs):
            complaints.append(f"cell {index} should show a figure and shows none")
        for output in cell.outputs:
            if output.output_type == "error":
                complaints.append(f"cell {index} failed: {output.ename}: {output.evalue}")
            elif published and output.output_type == "stream" and output.name == "stderr":
                complaints.append(f"cell {index} writes to stderr: {output.text.strip()[:200]}")
            elif published and any(mime.startswith("image/") for mime in output.get("data", {})):
                figures += 1
                about = _about(output) or {}
                lacking = [what for what in ("name", "caption", "alt") if not about.get(what)]
                if lacking:
                    complaints.append(f"the figure of cell {index} lacks {', '.join(lacking)}")
    if published and name in typed.PAGES and not figures:
        complaints.append("it shows no figure")
    if complaints:
        raise GateError(f"{name}: " + "; ".join(complaints))


def _about(output):
    return output.get("metadata", {}).get("sparselib")
