# What the scripts share: sourced, not run.

# A line of progress, apart from the output of programs; bold on terminals.
say() {
  if [ -t 1 ]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi
}

# sudo has a PATH of its own: then the toolchain is that of whoever called it.
need_cargo() {
  command -v cargo >/dev/null && return
  local home
  for home in "${HOME:-}" "$(getent passwd "${SUDO_USER:-}" | cut -d: -f6)"; do
    if [ -n "$home" ] && [ -x "$home/.cargo/bin/cargo" ]; then
      export PATH="$home/.cargo/bin:$PATH" RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
      return
    fi
  done
  echo "error: Rust is not installed. Get it from https://rustup.rs, then run this again." >&2
  exit 1
}

# need_tools COMMAND:PACKAGE...: installs what is missing on Debian and Ubuntu, after saying so; names it elsewhere.
need_tools() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ "${#missing[@]}" = 0 ] && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing with apt-get: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "error: missing: ${missing[*]}. Install them, then run this again." >&2
    exit 1
  fi
}

# Namespaces, daemons and mounts that exist now, one a line.
leftovers() {
  ip netns list 2>/dev/null | awk '{print "namespace " $1}' | sort
  pgrep -x localvpc 2>/dev/null | sed 's/^/process localvpc /' || true
  pgrep -x localvpc-datap 2>/dev/null | sed 's/^/process localvpc-dataplane /' || true
  grep -o '/run/netns/[^ ]*' /proc/self/mounts 2>/dev/null | sort -u | sed 's/^/mount /' || true
}

NEXTEST_PROFILE_ARGS=()
[ -z "${CI:-}" ] || NEXTEST_PROFILE_ARGS=(--profile ci)

# Where cargo puts what it builds.
target_directory() {
  cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
