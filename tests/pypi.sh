# Tools of tests from PyPI; `source`d by the scripts that need them.

# Says what is missing and ends the script well. A machine that `could` have it fails where BLIP2_NO_SKIP=1.
skipped() {
    echo "skipped: $1"
    if [ "${2:-}" = could ] && [ "${BLIP2_NO_SKIP:-}" = 1 ]; then exit 1; fi
    exit 0
}

# from_pypi FOLDER PACKAGE…: an environment with these packages, made once. A file is written last: without it, or for other
# packages, they are installed again.
from_pypi() {
    local into="$1"
    shift
    if [ "$(cat "$into/installed" 2>/dev/null)" = "$*" ]; then return; fi
    python3 -m venv "$into" ||
        skipped "$* comes from PyPI, and python3 makes no environment for it (Debian: python3-venv)" could
    # Without the index this machine cannot have them: no failure, whatever BLIP2_NO_SKIP says.
    "$into/bin/pip" install --quiet "$@" || skipped "$* cannot be had here from PyPI"
    echo "$*" >"$into/installed"
}
