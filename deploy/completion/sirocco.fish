# Completion of `sirocco` for fish: commands, and the flags of each, as --help names them (so that it cannot
# be out of date). Copied to ~/.config/fish/completions/, or /usr/share/fish/vendor_completions.d/.

# --help of the program, or of the command that the line names.
function __sirocco_help
    set -l words (commandline -opc)
    set -l command
    if set -q words[2]; and not string match -q -- '-*' $words[2]
        set command $words[2]
    end
    $words[1] $command --help 2>/dev/null
end

# Of its lines that begin with a flag ("  -h,--help   ...", "  --config TEXT   ...") the flag, a tab, and what
# is said of it where that begins on the same line, in column 31.
function __sirocco_flags
    for line in (__sirocco_help | string match -r -- '^  (?:-[a-z],)?--[a-z0-9-]+(?: .*)?$')
        set -l flag (string match -r -- '--[a-z0-9-]+' $line)
        string match -qr -- '^.{29} \S' $line
        and echo $flag\t(string sub -s 31 -- $line)
        or echo $flag
    end
end

function __sirocco_commands
    set -l lines (__sirocco_help)
    set -l at (contains -i -- Subcommands: $lines)
    and string replace -rf -- '^  ([a-z][a-z-]*) +(\S.*)$' '$1'\t'$2' $lines[$at..]
end

function __sirocco_wants_command
    test (count (commandline -opc)) = 1; and not string match -q -- '-*' (commandline -ct)
end

complete -c sirocco -n __sirocco_wants_command -f -a '(__sirocco_commands)'
# Else files, of --model, --config and the like, or flags.
complete -c sirocco -n 'string match -q -- "-*" (commandline -ct)' -f -a '(__sirocco_flags)'
