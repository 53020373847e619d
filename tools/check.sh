# check.sh BIN: what `make test` does. Every step runs, so that one run shows all that is wrong; pytest's summary comes last.
bin=$1
failed=0
# One thread a process, two processes: right for two cores, and results do not hang on the machine.
OMP_NUM_THREADS=1 PYTHONHASHSEED=0 "$bin/nbdev-test" --n-workers 2 --do-print || { failed=1; echo "notebooks: FAILED"; }
OMP_NUM_THREADS=1 "$bin/python" -m pytest -q -n 2 --dist loadfile || failed=1
[ $failed = 0 ] || echo "make test: FAILED, see above" >&2
exit $failed
