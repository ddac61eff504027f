//! The completion of bash.

use sockmux_uring::cli::vocabulary;

use crate::words;

const HEAD: &str = r##"# bash completion for sockmux-uring. Made from its command line; do not edit.

_sockmux_uring() {
    # bash breaks words at = and :, and so has only a piece of NAME=ITEM:VALUE: this is all of it.
    local line=${COMP_LINE:0:COMP_POINT}
    local word=${line##*[[:blank:]]} before='' head='' items='' reply
    ((COMP_CWORD > 0)) && before=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
"##;

const TAIL: &str = r##"
    mapfile -t COMPREPLY < <(compgen -W "$items" -- "${word#"$head"}")
    ((${#COMPREPLY[@]} > 0)) || return
    # Only the piece behind bash's last break is replaced.
    local piece=${word##*["$COMP_WORDBREAKS"]}
    local kept=${word%"$piece"} at
    for at in "${!COMPREPLY[@]}"; do
        reply=$head${COMPREPLY[at]}
        [[ $reply == *[:=@/\{] ]] && compopt -o nospace
        COMPREPLY[at]=${reply#"$kept"}
    done
}
complete -o default -F _sockmux_uring sockmux-uring
"##;

/// The script.
pub(crate) fn script() -> String {
    format!("{HEAD}{}{}{}{TAIL}", of_commands(), of_options(), of_words())
}

/// Behind a command its own options.
fn of_commands() -> String {
    let each = vocabulary::commands().into_iter().map(|(command, options)| {
        let options = options.join(" ");
        format!("    {command}) [[ $word != {command} ]] && items='{options}' ;;\n")
    });
    format!("    case ${{COMP_WORDS[1]}} in\n{}    esac\n", each.collect::<String>())
}

/// The values of options.
fn of_options() -> String {
    let options = words::options().into_iter().filter(|option| option.takes_value);
    let each = options.map(|option| {
        let (names, values) = (option.names.join(" | "), option.values.join(" "));
        match values.is_empty() {
            // A file, or what only the user knows.
            true => format!("    {names}) return 0 ;;\n"),
            false => format!("    {names}) items='{values}' ;;\n"),
        }
    });
    format!("    case $before in\n{}    esac\n", each.collect::<String>())
}

/// Options, parameters, their values, and commands.
fn of_words() -> String {
    let parameters = vocabulary::parameters();
    let values: String = parameters
        .iter()
        .map(|parameter| {
            let (name, values) = (parameter.name, parameter.values.join(" "));
            // Of a list, the item behind the last comma.
            let head = match parameter.is_list {
                true => "${word%\"${word##*[=,]}\"}".to_owned(),
                false => format!("{name}="),
            };
            format!("    {name}=*) head={head} items='{values}' ;;\n")
        })
        .collect();
    let options: Vec<_> = words::options().into_iter().flat_map(|option| option.names).collect();
    let names: Vec<_> = parameters.iter().map(|parameter| format!("{}=", parameter.name)).collect();
    let commands: Vec<_> = vocabulary::commands().iter().map(|(command, _)| *command).collect();
    format!(
        "    [[ -n $items ]] || case $word in\n{values}    -*) items='{}' ;;\n    +=* | *[=:@/]*) ;;\n    \
         *)\n        items='{}'\n        ((COMP_CWORD == 1)) && items+=' {}'\n        ;;\n    esac\n    \
         [[ -n $items ]] || return 0",
        options.join(" "),
        names.join(" "),
        commands.join(" ")
    )
}
