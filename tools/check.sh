# check.sh BIN: what `make test` does. Every step runs, so that one run shows all that is wrong; pytest's summary comes last.
bin=$1
failed=0
# Notebooks and scripts, then the modules that are written by hand; exported modules are formatted in their notebooks.
by_hand="cantolyric/__init__.py cantolyric/__main__.py cantolyric/_*.py cantolyric/_exercises cantolyric/*/__init__.py"
by_hand=$(ls -d $by_hand cantolyric/finetune.py cantolyric/preflight.py cantolyric/lyricist.py | grep -v _modidx)
for what in "check" "format --check"; do
    "$bin/ruff" $what --quiet . || { failed=1; echo "ruff $what: FAILED"; }
    "$bin/ruff" $what --quiet --config 'extend-exclude=[]' $by_hand || { failed=1; echo "ruff $what: FAILED"; }
done
"$bin/mypy" || { failed=1; echo "mypy: FAILED"; }
# One thread a process, two processes: right for two cores, and results do not hang on the machine.
OMP_NUM_THREADS=1 PYTHONHASHSEED=0 "$bin/nbdev-test" --n-workers 2 --do-print || { failed=1; echo "notebooks: FAILED"; }
OMP_NUM_THREADS=1 "$bin/python" -m pytest -q -n 2 --dist loadfile || failed=1
[ $failed = 0 ] || echo "make test: FAILED, see above" >&2
exit $failed
