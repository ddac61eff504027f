//! The option list of an exit, `,-in(option list)`: parameters of the process that an exit can have for
//! itself.

use std::path::Path;

use super::authorizer;
use super::error::{Problem, plain, quoted};
use super::exit::ExitWords;
use super::files::{self, Files};
use super::hostlist::{HostList, Lookup};
use super::maxima::MaximaReader;
use super::permit;
use super::plan::{Authorizer, ExitOptions, Permit, Proxy};
use super::secrets;
use super::server::{self, Server};
use super::suggest;
use super::timeout::TimeoutReader;
use super::unsupported;
use super::words::{Word, WordOrigin};
use crate::limits::PERMITS_MAX;

/// The remedy for a word that is not valid in an option list.
const MAY_STAND: &str = "in an option list may stand PERMIT=, RELIABLE=, AUTHORIZER=, \
                         MAXIMA=conpch and delegated, TIMEOUT=con, io, ask and lin, \
                         SERVER=proto://host and +=FILE";

/// The parameters of an option list.
const NAMES: [&str; 6] = ["PERMIT", "RELIABLE", "AUTHORIZER", "MAXIMA", "TIMEOUT", "SERVER"];

/// Parameters of the process only.
const OF_PROCESS: [&str; 5] = ["PORT", "DEST", "SOXCONF", "STLS", "TLSCONF"];

/// A parsed option list. Where it has no value, that of the process holds.
#[derive(Default)]
pub(crate) struct InList {
    permits: Vec<Permit>,
    reliable: Option<HostList>,
    authorizers: Vec<Authorizer>,
    maxima: MaximaReader,
    timeouts: Option<TimeoutReader>,
    /// Words without effect, one sentence each.
    pub(crate) notices: Vec<String>,
}

/// The words of an option list of the parameter `of`, with those of the files that it names. In a
/// file's parameter other files are looked for beside that file.
///
/// # Errors
/// As of [`files::expand`].
pub(crate) fn expand(
    list: Vec<String>,
    of: &Word,
    files: &dyn Files,
) -> Result<Vec<Word>, Problem> {
    let beside = match &of.origin {
        WordOrigin::File { path, .. } => path.parent(),
        WordOrigin::Arguments => None,
    };
    let words = list.into_iter().map(Word::argument).collect();
    files::expand_beside(beside.map(Path::to_owned), words, files)
}

/// Reads the words of an option list of the parameter `of`; and the server that it names, as an
/// exit.
///
/// # Errors
/// The first word that is invalid or not valid there, with its file and line.
pub(crate) fn read(
    words: &[Word],
    of: &Word,
    lookup: &mut Lookup<'_>,
) -> Result<(InList, Option<ExitWords>), Problem> {
    let (mut list, mut named) = (InList::default(), None);
    for word in words {
        list.add(word, of, &mut named, lookup).map_err(|problem| problem.in_word(word))?;
    }
    Ok((list, named))
}

impl InList {
    fn add(
        &mut self,
        word: &Word,
        of: &Word,
        named: &mut Option<ExitWords>,
        lookup: &mut Lookup<'_>,
    ) -> Result<(), Problem> {
        if word.text.starts_with('-') {
            return Err(of_process("options are"));
        }
        let Some((name, value)) = word.text.split_once('=') else {
            return Err(Problem::new("not NAME=value", MAY_STAND));
        };
        secrets::check(&word.text)?;
        match name {
            "PERMIT" if self.permits.len() == PERMITS_MAX => Err(permit::too_many()),
            "PERMIT" => {
                self.permits.push(permit::parse(value, &word.text, lookup)?);
                Ok(())
            }
            "RELIABLE" => {
                HostList::add_to(&mut self.reliable, HostList::parse(value, lookup)?);
                Ok(())
            }
            "AUTHORIZER" => {
                let is_shown = word.is_argument() && of.is_argument();
                authorizer::add(value, is_shown, &mut self.authorizers, &mut self.notices)
            }
            "MAXIMA" => self.maxima.add(value, &mut self.notices),
            "TIMEOUT" => {
                let reader = self.timeouts.get_or_insert_with(TimeoutReader::of_exit);
                reader.add(value, &mut self.notices)
            }
            "SERVER" if named.is_some() => {
                Err(Problem::new("a second server is named", "leave one of them out"))
            }
            "SERVER" => {
                *named = Some(named_server(value)?);
                Ok(())
            }
            name if OF_PROCESS.contains(&name) => Err(of_process(&format!("{name}= is"))),
            name => Err(unsupported::parameter(name).unwrap_or_else(|| {
                let remedy = match suggest::nearest(name, NAMES) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => MAY_STAND.to_owned(),
                };
                Problem::new(format!("{} is not a parameter", quoted(name)), remedy)
            })),
        }
    }

    /// The options of the exit, and its times, which are completed by those of the process.
    ///
    /// # Errors
    /// A parameter that has no meaning for such an exit.
    pub(crate) fn finish(
        self,
        proxy: Option<Proxy>,
    ) -> Result<(ExitOptions, Option<TimeoutReader>), Problem> {
        let is_for = |list: &Authorizer| {
            proxy.is_some_and(|proxy| proxy != Proxy::Socks4 && list.is_of(proxy))
        };
        if !self.authorizers.iter().all(is_for) {
            return Err(Problem::new(
                "AUTHORIZER= names users of a proxy that this exit is not",
                "leave it out: SERVER=socks,-in(...) and SERVER=http,-in(...) authenticate users",
            ));
        }
        if let Some(permit) = self.permits.first().filter(|_| proxy.is_none()) {
            return Err(Problem::new(
                format!(
                    "{} says what a proxy may reach, and this exit is none",
                    plain(&permit.source)
                ),
                "leave it out, or name no server, as in SERVER=http,-in(PERMIT=http:*:*)",
            ));
        }
        let InList { permits, reliable, authorizers, maxima, timeouts, .. } = self;
        let maxima = maxima.finish();
        if maxima.services.is_some() {
            return Err(of_process("MAXIMA=service is"));
        }
        let options =
            ExitOptions { permits, reliable, authorizers, maxima, ..ExitOptions::default() };
        Ok((options, timeouts))
    }
}

/// The value of `SERVER=` in an option list: a server for an exit that names none.
fn named_server(value: &str) -> Result<ExitWords, Problem> {
    if value.starts_with("sockmux") {
        return Err(of_process("the persistent connection is"));
    }
    let other = || {
        Problem::new(
            "only a server for this very exit may be named in its option list",
            "write SERVER=proto://host[:port] there, and give another exit to the process itself, \
             outside of the parentheses",
        )
    };
    if value.contains(",-in") || !value.contains("://") {
        return Err(other());
    }
    match server::parse_server(&format!("{value},-in"), &mut |_| Ok(None))? {
        Server::Exit(words) => Ok(words),
        _ => Err(other()),
    }
}

fn of_process(what: &str) -> Problem {
    Problem::new(
        format!("{what} the whole process's"),
        format!("give it to the process itself, outside of the parentheses; {MAY_STAND}"),
    )
}
