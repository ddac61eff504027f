//! Options behind `?`: `name=value[&name=value]*`, of entrances and exits.

use super::error::{Problem, quoted};
use super::suggest;

/// Text without its options, and the options.
pub(crate) fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((text, options)) => (text, Some(options)),
        None => (text, None),
    }
}

/// Each option with its value, once.
///
/// # Errors
/// A name that is not one of `known`, a name without value, a name given twice.
pub(crate) fn each<'t>(
    options: Option<&'t str>,
    known: &[&str],
) -> Result<Vec<(&'t str, &'t str)>, Problem> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for option in options.into_iter().flat_map(|options| options.split('&')) {
        let Some((name, value)) = option.split_once('=') else {
            return Err(Problem::new(
                format!("the option {} has no value", quoted(option)),
                format!("write ?{}=... behind the place, or leave the ? out", known[0]),
            ));
        };
        if !known.contains(&name) {
            return Err(Problem::new(
                format!("{} is not an option here", quoted(name)),
                suggest::remedy(name, known),
            ));
        }
        if all.iter().any(|(other, _)| *other == name) {
            return Err(Problem::new(format!("{name} is given twice"), "keep one of the two"));
        }
        all.push((name, value));
    }
    Ok(all)
}
