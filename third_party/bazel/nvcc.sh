#!/usr/bin/env bash
# Runs nvcc so that what it makes does not depend on where the sources lie, how old they are, nor in
# which sandbox it runs.
# It tells its compilers the source's real path, of which they make names, and no option changes that: so
# the commands that it would run (--dryrun) are run here, with the path that was given to it. And ptxas
# puts the time and size of each source into its table of lines, unless the PTX has them: so it has.
#
# usage: nvcc.sh NVCC SOURCE ARGUMENT...     the arguments name the source, too
set -euo pipefail
nvcc="$1" source="$2"
shift 2
# The directory that debug information names.
export PWD=/proc/self/cwd
path="$(realpath "$source")"
commands="$("$nvcc" --dryrun "$@" 2>&1)" || {
  echo "$commands" >&2
  exit 1
}
[[ "$commands" == *"--orig_src_path_name \"$path\""* ]] || {
  echo "nvcc.sh: nvcc does not name the source $path as it is known to: its objects would differ by place" >&2
  exit 1
}
while IFS= read -r line; do
  line="${line#\#\$ }"
  if [[ "$line" =~ ^([A-Za-z_]+)=(.*)$ ]]; then
    # These are what commands go by; of the others the values stand in the commands.
    case "${BASH_REMATCH[1]}" in
      CICC_PATH | LD_LIBRARY_PATH | NVVMIR_LIBRARY_DIR | PATH | TOP) export "${BASH_REMATCH[1]}=${BASH_REMATCH[2]}" ;;
    esac
  else
    [[ ! "$line" =~ ^ptxas\ .*\"([^\"]+\.ptx)\" ]] ||
      sed -i -E 's/^([[:space:]]*\.file[[:space:]]+[0-9]+ "[^"]*")$/\1, 1, 1/' "${BASH_REMATCH[1]}"
    eval "${line//"$path"/$source}"
  fi
done < <(grep '^#\$ ' <<<"$commands")
