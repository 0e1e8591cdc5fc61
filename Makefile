# `make demo` and `make test` are all a newcomer needs; both make .venv first. Needs: make and Python 3.11 or newer.
# PYTHON=python3.12 make test   chooses another interpreter
# make test ARGS="-k wire"      hands options on

VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
ARGS ?=

# An interpreter qualifies if it is new enough and can make an environment; constraints.txt was tested with the first name.
QUALIFIES := import ensurepip, sys; sys.exit(sys.version_info < (3, 11))
FIND = for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
         "$$name" -c '$(QUALIFIES)' >/dev/null 2>&1 && { echo "$$name"; break; }; done
CHOSEN = $(or $(PYTHON),$(shell $(FIND)))

# An interpreter named by hand replaces an environment of another version.
ifdef PYTHON
VERSION := import sys; print(*sys.version_info[:2])
ifneq ($(shell { $(PYTHON) -c '$(VERSION)'; } 2>/dev/null),$(shell { $(RUN) -c '$(VERSION)'; } 2>/dev/null))
FRESH := --clear
.PHONY: $(STAMP) $(DEV)
endif
endif

.PHONY: help demo test check bench gpu
help:
	@echo "make demo    four simulated scanners stream into a cluster on this machine; pictures in recon-demo/"
	@echo "make test    every test that is not marked long or gpu"
	@echo "make check   ruff, mypy --strict, import contracts, import table"
	@echo "make bench   what this machine takes in and reconstructs"
	@echo "make gpu     tests marked gpu, every method on the GPU, the kernels' times; with the system's own python3"

demo: $(STAMP)
	$(VENV)/bin/recon-cluster demo $(ARGS)

test: $(DEV)
	$(RUN) -m pytest $(ARGS)

check: $(DEV)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports
	$(RUN) -m pytest tests/test_house.py

bench: $(DEV)
	$(VENV)/bin/recon-cluster bench ingest $(ARGS)
	$(VENV)/bin/recon-cluster bench load $(ARGS)

# A GPU machine brings its own cupy and torch, matched to its driver: an environment of ours would hide them.
# What fails in one part keeps no other from running, but 2 says that there is no GPU.
gpu:
	@python="$(or $(PYTHON),python3)"; "$$python" -m bench.gpu $(ARGS); status=$$?; [ $$status != 2 ] || exit 2; \
	"$$python" -m bench.cuda_methods || status=1; "$$python" -m bench.cuda || status=1; exit $$status

# What runs needs no test tools: `make demo` leaves the extra `dev` out.
$(STAMP): WANTED := .
$(DEV): WANTED := '.[dev]'
$(STAMP) $(DEV): pyproject.toml constraints.txt
	@"$(CHOSEN)" -c '$(QUALIFIES)' 2>/dev/null || { \
	  echo "No usable Python: found '$(CHOSEN)', wanted Python 3.11 or newer with its venv module;" \
	       "install one (Debian: python3.11 and python3.11-venv) or name it: PYTHON=/path/to/python make $(MAKECMDGOALS)" >&2; exit 1; }
	@[ -x $(RUN) ] && [ -z "$(FRESH)" ] || "$(CHOSEN)" -m venv --clear $(VENV)
	@echo "installing into $(VENV): a few minutes the first time"
	$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e $(WANTED)
	@touch $(STAMP) $@
