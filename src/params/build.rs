//! Words to plan: every parameter read, then all of them held against each other.

use super::checks;
use super::error::{Failure, Problem, plain, quoted};
use super::hostlist::{HostList, Lookup};
use super::plan::{Entrance, Exit, LinkPlan, Plan, Target, Transport};
use super::portlist::{self, PortList, suffix};
use super::server::{self, ExitWords, Server};
use super::soxconf::SoxConfReader;
use super::suggest;
use super::timeout::TimeoutReader;
use super::unsupported;
use super::words::Word;
use crate::limits::{ENTRANCES_MAX, EXITS_MAX};

/// Every parameter that there is.
const NAMES: [&str; 5] = ["SERVER", "PORT", "DEST", "TIMEOUT", "SOXCONF"];

/// Makes the plan from the values of `-P` (each as a word `-Pvalue`) and the parameters.
///
/// # Errors
/// The first word that is wrong; or, when each is right, what contradicts or is missing.
pub fn plan(
    listen: &[Word],
    parameters: &[Word],
    lookup: &mut Lookup<'_>,
) -> Result<Plan, Failure> {
    let mut draft = Draft::default();
    for word in listen {
        draft.listen(word).map_err(|problem| Failure::at(word, &problem))?;
    }
    for word in parameters {
        draft.parameter(word, lookup).map_err(|problem| Failure::at(word, &problem))?;
    }
    draft.finish()
}

/// What has been read so far, each with the word that said it.
#[derive(Default)]
struct Draft {
    listen: Vec<(Entrance, Word)>,
    receptor: Option<Word>,
    connector: Option<(Target, Word)>,
    relay: Option<(Target, Transport, Word)>,
    entrances: Vec<(Entrance, Word)>,
    exits: Vec<Exit>,
    /// The first exit of each transport that is open to everybody, as written: none behind it of
    /// the same transport is ever used. One of the other is, where the peer says what its streams
    /// carry.
    open_exits: Vec<(Transport, String)>,
    timeouts: TimeoutReader,
    soxconf: SoxConfReader,
    notices: Vec<String>,
}

impl Draft {
    /// `-P[host]:port[/udp][,port]`.
    fn listen(&mut self, word: &Word) -> Result<(), Problem> {
        let value = word.text.strip_prefix("-P").unwrap_or(&word.text);
        if value.contains('=') {
            let remedy = format!("did you mean `{}`?", word.text.trim_start_matches('-'));
            return Err(Problem::new("-P takes [host]:port", remedy));
        }
        add_entrances(&mut self.listen, PortList::parse(value)?.entrances(), word)
    }

    fn parameter(&mut self, word: &Word, lookup: &mut Lookup<'_>) -> Result<(), Problem> {
        let Some((name, value)) = word.text.split_once('=') else {
            return Err(Problem::new("not NAME=value", bare_word_remedy(&word.text)));
        };
        match name {
            "SERVER" => match server::parse_server(value)? {
                Server::Receptor => {
                    self.receptor.get_or_insert_with(|| word.clone());
                    Ok(())
                }
                Server::Connector(target) => self.connect(target, word),
                Server::Exit(exit) => self.exit(exit, word, lookup),
                Server::Relay(target, transport) => self.relay(target, transport, word),
            },
            "DEST" => self.exit(server::parse_dest(value)?, word, lookup),
            "PORT" => add_entrances(&mut self.entrances, PortList::parse(value)?.entrances(), word),
            "TIMEOUT" => self.timeouts.add(value, &mut self.notices),
            "SOXCONF" => self.soxconf.add(value, &mut self.notices),
            _ => Err(unsupported::parameter(name).unwrap_or_else(|| {
                Problem::new(
                    format!("{} is not a parameter", quoted(name)),
                    suggest::remedy(name, &NAMES),
                )
            })),
        }
    }

    fn connect(&mut self, target: Target, word: &Word) -> Result<(), Problem> {
        if let Some((_, other)) = &self.connector {
            return Err(Problem::new(
                format!("there is one persistent connection already, by {other}"),
                "leave one of them out, or run a second process",
            ));
        }
        self.connector = Some((target, word.clone()));
        Ok(())
    }

    fn relay(&mut self, target: Target, transport: Transport, word: &Word) -> Result<(), Problem> {
        if let Some((_, _, other)) = &self.relay {
            return Err(Problem::new(
                format!("there is one plain relay already, by {other}"),
                "leave one of them out, or run a second process",
            ));
        }
        self.relay = Some((target, transport, word.clone()));
        Ok(())
    }

    fn exit(
        &mut self,
        exit: ExitWords,
        word: &Word,
        lookup: &mut Lookup<'_>,
    ) -> Result<(), Problem> {
        let ExitWords { protocol, target, transport, clients } = exit;
        let clients = clients.map(|list| HostList::parse(&list, lookup)).transpose()?;
        let source = plain(&word.text);
        if self.exits.len() == EXITS_MAX {
            return Err(Problem::new(
                format!("there are {EXITS_MAX} exits already"),
                "spread them over several processes",
            ));
        }
        if let Some((_, open)) = self.open_exits.iter().find(|(of, _)| *of == transport) {
            let all = match transport {
                Transport::Tcp => "stream",
                Transport::Udp => "UDP flow",
            };
            self.notices.push(format!(
                "{source} is never used: {open} stands before it and takes every {all}"
            ));
        } else if clients.as_ref().is_none_or(HostList::permits_everybody) {
            self.open_exits.push((transport, source.clone()));
        }
        if clients.as_ref().is_some_and(HostList::widens_hosts_by_port) {
            self.notices.push(format!(
                "{source} lets in the hosts of its list and, from any host, whoever came in by \
                 the port of its -P element"
            ));
        }
        if protocol == "ftp" {
            self.notices.push(format!(
                "{source} carries FTP commands only: data connections are not forwarded"
            ));
        }
        let source = word.text.clone();
        self.exits.push(Exit { protocol, target, transport, clients, source });
        Ok(())
    }

    fn finish(mut self) -> Result<Plan, Failure> {
        if let Some((target, transport, word)) = self.relay.take() {
            return self.finish_relay(target, transport, &word);
        }
        checks::link_transport(&self.listen)?;
        if self.entrances.is_empty() && self.exits.is_empty() {
            return Err(self.nothing_flows());
        }
        checks::distinct(&self.listen)?;
        checks::distinct(&self.entrances)?;
        checks::connector(self.connector.as_ref(), &self.entrances)?;
        let link = match (&self.connector, &self.receptor, self.listen.first()) {
            (Some((_, word)), _, Some((_, listen))) => {
                return Err(Failure::at(
                    word,
                    &Problem::new(
                        format!("the persistent connection is also accepted, by {listen}"),
                        "leave one of them out: one end connects, the other accepts",
                    ),
                ));
            }
            (Some((_, word)), Some(receptor), None) => {
                return Err(Failure::at(
                    word,
                    &Problem::new(
                        format!("{receptor} asks to accept the persistent connection"),
                        "leave one of them out: one end connects, the other accepts",
                    ),
                ));
            }
            (Some((target, _)), None, None) => LinkPlan::Connect(target.clone()),
            (None, _, Some(_)) => {
                checks::listen(&self.listen, &self.entrances)?;
                LinkPlan::Listen(
                    self.listen.into_iter().map(|(entrance, _)| entrance.bind).collect(),
                )
            }
            (None, Some(receptor), None) => {
                return Err(Failure::at(
                    receptor,
                    &Problem::new(
                        "it is not said where to accept the persistent connection",
                        "add -P[host]:port, as in -P:9000",
                    ),
                ));
            }
            (None, None, None) => {
                return Err(Failure::new(
                    "there is no persistent connection; add -P[host]:port to accept it or \
                     SERVER=sockmux://host:port to make it",
                ));
            }
        };
        Ok(Plan {
            link,
            entrances: self.entrances.into_iter().map(|(entrance, _)| entrance).collect(),
            exits: self.exits,
            timeouts: self.timeouts.finish(),
            soxconf: self.soxconf.finish(),
            notices: self.notices,
        })
    }

    /// A plain relay: `-P` says where clients come in, and there is nothing else.
    fn finish_relay(
        self,
        target: Target,
        transport: Transport,
        word: &Word,
    ) -> Result<Plan, Failure> {
        let udp = suffix(transport);
        let link = self.connector.as_ref().map(|(_, word)| word).or(self.receptor.as_ref());
        let entrance = self.entrances.first().map(|(_, word)| word);
        let other = link.or(entrance).map(|word| plain(&word.text));
        if let Some(other) = other.or(self.exits.first().map(|exit| plain(&exit.source))) {
            let relay = plain(&word.text);
            return Err(Failure::at(
                word,
                &Problem::new(
                    format!("a plain relay has no persistent connection, which {other} is about"),
                    format!(
                        "leave {other} out and let clients come in by -P[host]:port{udp}, or \
                         write {relay},-in to make it an exit for streams of the peer"
                    ),
                ),
            ));
        }
        if self.listen.is_empty() {
            return Err(Failure::at(
                word,
                &Problem::new(
                    "it is not said where clients of the plain relay come in",
                    format!("add -P[host]:port{udp}, as in -P:8080{udp}"),
                ),
            ));
        }
        checks::relay_transport(&self.listen, transport, word)?;
        checks::distinct(&self.listen)?;
        checks::relay(&self.listen, (&target, transport), word)?;
        let binds = self.listen.into_iter().map(|(entrance, _)| entrance.bind).collect();
        Ok(Plan {
            link: LinkPlan::Relay { binds, target, transport },
            entrances: Vec::new(),
            exits: Vec::new(),
            timeouts: self.timeouts.finish(),
            soxconf: self.soxconf.finish(),
            notices: self.notices,
        })
    }

    fn nothing_flows(&self) -> Failure {
        let link = self.connector.as_ref().map(|(_, word)| word).or(self.receptor.as_ref());
        let link = link.or(self.listen.first().map(|(_, word)| word));
        match link {
            Some(word) => Failure::at(
                word,
                &Problem::new(
                    "nothing would ever flow through the persistent connection",
                    "add PORT= (streams begin here) or DEST=host:port (streams come out here)",
                ),
            ),
            None => Failure::new(
                "there is nothing to do; give -P[host]:port or SERVER=sockmux://host:port, and \
                 PORT= or DEST=, or try `sockmux-uring demo` or --help",
            ),
        }
    }
}

/// Adds the ports of one word to those of the words before it.
fn add_entrances(
    all: &mut Vec<(Entrance, Word)>,
    list: Vec<Entrance>,
    word: &Word,
) -> Result<(), Problem> {
    if all.len() + list.len() > ENTRANCES_MAX {
        return Err(portlist::too_many(all.len() + list.len()));
    }
    all.extend(list.into_iter().map(|entrance| (entrance, word.clone())));
    Ok(())
}

/// What a word without `=` was probably meant to be.
fn bare_word_remedy(text: &str) -> String {
    let text = plain(text);
    let numbers = text.replace("/udp", "");
    if PortList::parse(&text).is_ok() && !numbers.contains(|c: char| c.is_ascii_alphabetic()) {
        if numbers != text {
            return format!("write PORT={text} for an entrance");
        }
        format!(
            "write PORT={text} for an entrance, or -P{text} to accept the persistent connection"
        )
    } else if text.starts_with("sockmux") || text.contains("://") {
        format!("did you mean `SERVER={text}`?")
    } else if server::parse_dest(&text).is_ok() {
        format!("did you mean `DEST={text}`?")
    } else if suggest::nearest(&text, ["demo"]).is_some() {
        "did you mean `demo`?".to_owned()
    } else {
        match suggest::nearest(&text, NAMES) {
            Some(name) => format!("did you mean `{name}=...`?"),
            None => format!("known names are {}, and +=FILE", NAMES.join(", ")),
        }
    }
}
