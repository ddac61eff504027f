//! The man page: options as clap has them, and the description of `--help`.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use sockmux_uring::cli::{invocation, vocabulary};

/// The page, as roff.
pub(crate) fn page() -> io::Result<String> {
    let command = invocation::options();
    let man = Man::new(command);
    // No date, which an empty word stands for: the same source makes the same page.
    let title = concat!(
        ".TH SOCKMUX-URING 1 \"\" \"sockmux-uring ",
        env!("CARGO_PKG_VERSION"),
        "\" \"User Commands\"\n"
    );
    let mut page = title.as_bytes().to_vec();
    man.render_name_section(&mut page)?;
    synopsis().to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    description().to_writer(&mut page)?;
    words().to_writer(&mut page)?;
    String::from_utf8(page).map_err(io::Error::other)
}

fn synopsis() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    as_written(&mut roff, vocabulary::usage().lines().map(str::trim));
    roff
}

/// Each section of `--help`: its text is a table, and stays as it is.
fn description() -> Roff {
    let mut roff = Roff::new();
    let mut lines = vocabulary::description().lines().peekable();
    while let Some(title) = lines.next() {
        let title = title.trim_end_matches(':');
        if title.is_empty() {
            continue;
        }
        roff.control("SH", [title.to_uppercase().as_str()]);
        let mut section = Vec::new();
        while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(' ')) {
            section.push(line.strip_prefix("  ").unwrap_or(line));
        }
        as_written(&mut roff, section.into_iter());
    }
    roff
}

/// Lines that are not filled, and use the width of a usual terminal.
fn as_written<'l>(roff: &mut Roff, lines: impl Iterator<Item = &'l str>) {
    roff.control("nf", []);
    roff.control("in", ["2n"]);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("in", []);
    roff.control("fi", []);
}

/// What `--help` has no room for.
fn words() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["STANDARD PORTS"]);
    roff.text([roman("The port of PROTOCOL://HOST without one:")]);
    for (protocol, port) in vocabulary::protocols() {
        roff.control("br", []);
        roff.text([bold(*protocol), roman(format!(" {port}"))]);
    }
    roff.control("SH", ["WITHOUT EFFECT"]);
    roff.text([roman("Items of the original that are accepted and have no effect:")]);
    for parameter in vocabulary::parameters() {
        for item in parameter.ignored {
            roff.control("br", []);
            roff.text([bold(format!("{}={item}", parameter.name))]);
        }
    }
    roff
}
