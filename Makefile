# make book    from a clone to _build/html/index.html: environment, chapters, pages, check
# make test    lint, types and the fast tests            make test-slow  the tests that take longer
# make copies  the book also as a PDF and as a zip to read offline, linked on its first page; needs Chromium
# make check   the page check alone, on what is built    make clean      what make book built; runs/ stays

BIN := .venv/bin
INSTALLED := .venv/installed
# A process for each core, with one thread each: the pictures of the tests are too small for more.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --durations 10

.PHONY: env test test-slow book copies check clean

env: $(INSTALLED)

# The first Python that is new enough: PYTHON if it is given, python3, or one that is named by its version.
$(INSTALLED): pyproject.toml constraints.txt
	@found=; for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Python 3.11.4 or newer is needed and none was found; try: make env PYTHON=/path/to/python3.12" >&2; exit 2; \
	fi; \
	echo "environment: .venv, made with $$("$$found" --version)"; \
	if uv --version >/dev/null 2>&1; then \
	  { $(BIN)/python --version >/dev/null 2>&1 || { rm -rf .venv && uv venv --python "$$found" .venv; }; } && \
	  uv pip install --python $(BIN)/python -c constraints.txt -e '.[book,test]'; \
	else \
	  { $(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && "$$found" -m venv .venv; }; } && \
	  $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[book,test]'; \
	fi
	@touch $@

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(PYTEST)

test-slow: env
	$(PYTEST) -m slow -r s

book: env
	$(BIN)/miue book

copies: env
	$(BIN)/miue book --pdf --zip

check: env
	$(BIN)/python -m miue.publishing.page_check _build/html

clean:
	rm -rf _build
