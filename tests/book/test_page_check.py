"""The page check finds each defect that is planted, and nothing in a page without one."""

import pytest

from miue.errors import InputError
from miue.publishing.build import check

GOOD = """<html><head>
<link rel="stylesheet" href="_static/style.css"/><link rel="next" href="https://example.org/next.html"/>
<script src="_static/script.js"></script><script>const home = "https://example.org";</script>
</head><body id="top">
<h1 id="title">One</h1>
<p><a href="#title">here</a> <a href="#">up</a> <a href="two.html#place">there</a> <a href="sub/">below</a>
<a href="https://example.org/paper">the paper</a> <a href="mailto:a@example.org">a letter</a></p>
<img src="_images/line%201.png" alt="A line that rises from left to right"/>
<div class="output stream">2</div>
</body></html>"""

DEFECTS = {
    '<div class="output traceback highlight-x"><pre>Traceback\nKeyError: 1</pre></div>': "shows an error: KeyError: 1",
    '<div class="output stderr">careful</div>': "shows an error: careful",
    '<span id="papermill-error-cell">stopped</span>': "shows an error: stopped",
    '<div class="system-message"><p>Unknown</p></div>': "shows a message of the builder: Unknown",
    '<img src="_images/none.png" alt="A line that rises from left"/>': "image _images/none.png is missing",
    '<img alt="A line that rises from left"/>': "image  is missing",
    '<img src="_images/line%201.png"/>': "no alternative text",
    '<img src="_images/line%201.png" alt="  "/>': "no alternative text",
    '<img src="_images/line%201.png" alt="_images/line 1.png"/>': "no alternative text",
    '<img src="_images/line%201.png" alt="cbd69c2d.png"/>': "no alternative text",
    '<img src="_images/line%201.png" alt="a line"/>': "no alternative text",
    '<object type="image/svg+xml" data="_images/line%201.png"></object>': "no alternative text",
    '<object type="image/svg+xml" data="_images/none.svg">A line that rises steadily</object>': "none.svg is missing",
    '<a href="three.html">x</a>': "link to three.html, which does not exist",
    '<a href="../outside.html">x</a>': "link to ../outside.html, which does not exist",
    '<a href="two.html#nowhere">x</a>': "link to two.html#nowhere, but there is no such place",
    '<a href="#nowhere">x</a>': "link to #nowhere, but there is no such place",
    '<script src="https://cdn.example.org/x.js"></script>': "<script> loads https://cdn.example.org/x.js",
    '<script src="//cdn.example.org/x.js"></script>': "<script> loads //cdn.example.org/x.js",
    '<script>s.src = "https://cdn.example.org/x.js"</script>': "a script loads https://cdn.example.org/x.js",
    '<link rel="stylesheet" href="https://cdn.example.org/x.css"/>': "<link> loads https://cdn.example.org/x.css",
    '<link rel="preload" as="font" href="https://cdn.example.org/x.woff"/>': "<link> loads",
    '<img src="https://example.org/x.png" alt="A line that rises from left"/>': "<img> loads",
    '<img src="_images/line%201.png" srcset="https://e.org/x.png 2x" alt="A line that rises up"/>': "<img> loads",
    '<iframe src="https://example.org/"></iframe>': "<iframe> loads",
    "<style>@font-face {src: url('https://example.org/x.woff')}</style>": "a style loads https://example.org/x.woff",
    '<p style="background: url(//example.org/x.png)">x</p>': "a style loads //example.org/x.png",
}


@pytest.fixture
def html(tmp_path):
    for name in ("_static/style.css", "_static/script.js", "_images/line 1.png", "sub/index.html", "outside.txt"):
        path = tmp_path / "html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "outside.html").touch()
    (tmp_path / "html" / "two.html").write_text('<p id="place">Two</p>')
    (tmp_path / "html" / "index.html").write_text(GOOD)
    return tmp_path / "html"


def test_a_good_page_passes(html):
    assert check(html) == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(html, defect):
    (html / "index.html").write_text(GOOD.replace("</body>", f"{defect}</body>"))
    problems = check(html)
    assert len(problems) == 1, problems
    assert problems[0].startswith("index.html: ") and DEFECTS[defect] in problems[0]


def test_style_sheets_load_nothing_from_the_network(html):
    (html / "_static" / "style.css").write_text('@import "https://fonts.example.org/css"; a {b: url(x.png)}')
    assert check(html) == ["_static/style.css: loads https://fonts.example.org/css from the network"]


def test_a_folder_without_pages_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no index\.html"):
        check(tmp_path)
