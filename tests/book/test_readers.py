"""What the extension mends in pages of theme and libraries."""

from types import SimpleNamespace

from bs4 import BeautifulSoup

from miue.publishing.extension import readers


def test_cells_that_head_nothing_are_plain_and_those_that_do_are_not():
    context = {"body": '<tr><th></th><th class="blank col1" >&nbsp;</th><th>\n</th><th class="head"><p>A</p></th></tr>'}
    readers.mend(None, "page", "", context, None)
    assert context["body"] == '<tr><td></td><td class="blank col1" ></td><td></td><th class="head"><p>A</p></th></tr>'


def test_a_bibliography_is_a_list_of_works():
    context = {"body": '<div role="list"><div class="citation" role="doc-biblioentry">A</div></div>'}
    readers.mend(None, "page", "", context, None)
    assert context["body"] == '<div role="list"><div class="citation" role="listitem">A</div></div>'


def test_places_stand_before_the_list_that_they_were_in():
    context = {"body": '<dl class="py">\n<span id="a"></span><span id="b"></span><dt>x</dt></dl>'}
    readers.mend(None, "page", "", context, None)
    assert context["body"] == '<span id="a"></span><span id="b"></span><dl class="py"><dt>x</dt></dl>'


def test_a_page_without_a_body_stays_without():
    context = {}
    readers.mend(None, "genindex", "", context, None)
    assert context == {}


def test_arrows_in_the_list_of_pages_have_names():
    contents = '<ul><li><a href="#">One </a><details><summary></summary><ul><li>Two</li></ul></details></li></ul>'
    context = {"generate_toctree_html": lambda kind, **options: BeautifulSoup(contents, "html.parser")}
    readers.name_arrows(None, "page", "", context, None)
    assert context["generate_toctree_html"]("sidebar").summary["aria-label"] == "Pages of One"


def test_only_the_search_is_told_that_it_may_be_alone():
    told = []
    app = SimpleNamespace(add_js_file=lambda file, body: told.append(body))
    for page in ("book/index", "search"):
        readers.search_alone(app, page, "", {}, None)
    assert told == [readers.ALONE]
