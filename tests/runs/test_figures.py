"""The figures of a run as files, without a kernel."""

import base64

from nbformat import v4

from miue.runs import figures

DRAWN, PIXELS = "<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG of pixels"


def shown(**formats):
    data = {f"image/{name}": value for name, value in formats.items()}
    return v4.new_output("display_data", data=data, metadata={f"image/{name}": {"width": 3} for name in formats})


def test_figures_are_files_and_the_notebook_keeps_the_svg_alone(tmp_path):
    png = base64.b64encode(PIXELS).decode()
    both = {"svg+xml": DRAWN, "png": png}
    named = v4.new_code_cell("a", outputs=[shown(**both), v4.new_output("stream", text="x"), shown(**both)])
    named.metadata["mystnb"] = {"figure": {"name": "fig-../curves"}}
    plain = v4.new_code_cell("b", outputs=[shown(png=png)])
    silent = v4.new_code_cell("c", outputs=[v4.new_output("stream", text="x")])
    book = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), named, plain, silent])

    figures.extract(book, tmp_path / "figures")

    files = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert files == {
        "fig-.._curves.svg": DRAWN.encode(),
        "fig-.._curves.png": PIXELS,
        "fig-.._curves-2.svg": DRAWN.encode(),
        "fig-.._curves-2.png": PIXELS,
        "cell-3.png": PIXELS,
    }
    assert list(named.outputs[0].data) == list(named.outputs[2].data) == ["image/svg+xml"]
    assert list(named.outputs[0].metadata) == ["image/svg+xml"]
    assert plain.outputs[0].data == {"image/png": png}  # the only image there is stays


def test_without_figures_there_is_no_folder(tmp_path):
    figures.extract(v4.new_notebook(cells=[v4.new_code_cell("1")]), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
