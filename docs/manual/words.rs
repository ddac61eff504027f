//! The options as the completions of all shells need them.

use sockmux_uring::cli::invocation;

/// An option.
pub(crate) struct OptionWords {
    /// `-v`, `--verbose`.
    pub(crate) names: Vec<String>,
    pub(crate) takes_value: bool,
    /// The values, if they are a few words.
    pub(crate) values: Vec<String>,
    /// The first sentence of its description.
    pub(crate) about: String,
    /// `--verbose`'s `-v` may be given again.
    pub(crate) repeats: bool,
}

/// All options, in the order of `--help`.
pub(crate) fn options() -> Vec<OptionWords> {
    let mut command = invocation::options();
    command.build();
    let options = command.get_arguments().filter(|arg| !arg.is_positional());
    options
        .map(|arg| {
            let short = arg.get_short().map(|short| format!("-{short}"));
            let long = arg.get_long().map(|long| format!("--{long}"));
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let takes_value = arg.get_action().takes_values();
            let values = if takes_value { arg.get_possible_values() } else { Vec::new() };
            OptionWords {
                names: short.into_iter().chain(long).collect(),
                takes_value,
                values: values.iter().map(|value| value.get_name().to_owned()).collect(),
                about: help
                    .split([';', ':', '[', '('])
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
                repeats: matches!(
                    arg.get_action(),
                    clap::ArgAction::Append | clap::ArgAction::Count
                ),
            }
        })
        .collect()
}
