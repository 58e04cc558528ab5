# Completion of `sirocco` for bash: commands, and the flags of each, as --help names them (so that it
# cannot be out of date). Sourced, or copied to /usr/share/bash-completion/completions/sirocco.

# Lines of --help that begin with a flag: "  -h,--help   ...", "  --config TEXT   ...".
_sirocco_flags() {
  "$@" --help 2>/dev/null | sed -n 's/^  \(-[a-z],\)\?\(--[a-z0-9-]*\).*/\2/p'
}

_sirocco_commands() {
  "$1" --help 2>/dev/null | sed -n '/^Subcommands:/,$ s/^  \([a-z][a-z-]*\) .*/\1/p'
}

_sirocco() {
  local program="${COMP_WORDS[0]}" word="${COMP_WORDS[COMP_CWORD]}"
  COMPREPLY=()
  if ((COMP_CWORD == 1)) && [[ "$word" != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_sirocco_commands "$program")" -- "$word")
  elif [[ "$word" == -* ]]; then
    local command=()
    ((COMP_CWORD == 1)) || command=("${COMP_WORDS[1]}")
    mapfile -t COMPREPLY < <(compgen -W "$(_sirocco_flags "$program" "${command[@]}")" -- "$word")
  else
    # Files, of --model, --config and the like.
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}
complete -o filenames -F _sirocco sirocco
