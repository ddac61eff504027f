//! Writes the man page and the completions of bash, zsh and fish, from the one definition of the command
//! line: `cargo run --example manual -- FOLDER`. Packages install what it writes.
//!
//! clap's own completions cannot be used: most words are NAME=VALUE, whose values have words of their
//! own (`TIMEOUT=con:10,io:1h`), and to clap they are any text.

use std::path::PathBuf;
use std::{env, fs, io};

mod bash;
mod fish;
mod man;
#[cfg(test)]
mod tests;
mod words;
mod zsh;

/// The files, each with its content.
fn files() -> io::Result<[(&'static str, String); 4]> {
    Ok([
        ("sockmux-uring.1", man::page()?),
        ("sockmux-uring.bash", bash::script()),
        ("_sockmux-uring", zsh::script()),
        ("sockmux-uring.fish", fish::script()),
    ])
}

fn main() -> io::Result<()> {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("name the folder to write to"));
    };
    fs::create_dir_all(&folder)?;
    for (name, text) in files()? {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
