# venv.sh FOLDER [PYTHON]: make a virtual environment with the first Python that will do, or say what is missing.
folder=$1
shift
works() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
for python in ${1:-python3.11 python3.12 python3.13 python3}; do
    if command -v "$python" >/dev/null 2>&1 && works "$python"; then
        echo "setting up $folder with $("$python" --version) (once; a few minutes)"
        "$python" -m venv "$folder" && exec "$folder/bin/python" -m pip install --quiet --upgrade "pip>=25"
        exit 1
    fi
done
echo "No Python will do: wanted is 3.11 or later with its venv module (Debian, Ubuntu: apt install python3-venv)." >&2
echo "Looked for: ${1:-python3.11 python3.12 python3.13 python3}. Another one: make PYTHON=/path/to/python3 ..." >&2
exit 1
