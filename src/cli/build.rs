//! Words to plan: every parameter read, then all of them held against each other.

use std::time::Duration;

use super::at_peer;
use super::authorizer;
use super::carrier::{self, Carrier};
use super::checks;
use super::encryption::EncryptionWords;
use super::error::{Failure, Problem, plain, quoted};
use super::exit::{self, ExitWords};
use super::files::Files;
use super::foreground;
use super::hostlist::{HostList, Lookup};
use super::in_list::{self, InList};
use super::link::LinkWords;
use super::maxima::MaximaReader;
use super::plan::{
    Authorizer, Entrance, Exit, ExitKind, ExitOptions, LinkPlan, Permit, Plan, Privileges,
    Transport, UnixEntrance,
};
use super::portlist::{self, PortList, suffix};
use super::secrets;
use super::server::{self, Server};
use super::soxconf::SoxConfReader;
use super::suggest;
use super::timeout::TimeoutReader;
use super::unix;
use super::unsupported;
use super::words::Word;
use super::{peer_options, peers, permit};
use crate::limits::{ENTRANCES_MAX, EXITS_MAX, PERMITS_MAX, STRANGER_SECS};

/// Every parameter that there is; `vocabulary` has what may stand behind each.
pub(super) const NAMES: [&str; 11] = [
    "SERVER",
    "PORT",
    "DEST",
    "RELIABLE",
    "PERMIT",
    "AUTHORIZER",
    "MAXIMA",
    "TIMEOUT",
    "SOXCONF",
    "STLS",
    "TLSCONF",
];

/// Makes the plan from the options with a meaning for it (each as a word `-Pvalue`, `-Avalue`, ...)
/// and the parameters; `files` are those that option lists name.
///
/// # Errors
/// The first invalid word; if each is valid, a contradiction between them or a missing one.
pub fn plan(
    options: &[Word],
    parameters: &[Word],
    files: &dyn Files,
    lookup: &mut Lookup<'_>,
) -> Result<Plan, Failure> {
    let mut draft = Draft::default();
    // -F determines the meaning of the others, at any position.
    let (form, others): (Vec<_>, Vec<_>) = options.iter().partition(|w| w.text.starts_with("-F"));
    for word in form.into_iter().chain(others) {
        draft.option(word, lookup).map_err(|problem| Failure::at(word, &problem))?;
    }
    for word in parameters {
        draft.parameter(word, files, lookup).map_err(|problem| Failure::at(word, &problem))?;
    }
    draft.finish(files)
}

/// The values read so far, each with its word.
#[derive(Default)]
struct Draft {
    link: LinkWords,
    encryption: EncryptionWords,
    relay: Option<(ExitKind, Transport, Word)>,
    /// Proxies without a persistent connection: their exits are among the others.
    proxies: Vec<Word>,
    entrances: Vec<(Entrance, Word)>,
    unix_entrances: Vec<(UnixEntrance, Word)>,
    entrances_at_peer: Vec<(Entrance, Word)>,
    exits: Vec<Exit>,
    /// Times of exits, by their places.
    exit_timeouts: Vec<(usize, TimeoutReader)>,
    permits: Vec<Permit>,
    permit_words: Vec<Word>,
    authorizers: Vec<Authorizer>,
    authorizer_words: Vec<Word>,
    /// The first exit of each transport that admits all clients, as written: no later one of the same
    /// transport is ever used. Later ones of the other transport are, if the peer announces the
    /// transport of its streams.
    open_exits: Vec<(Transport, String)>,
    /// Notices about those, which hold unless peers have exits of their own.
    never_used: Vec<String>,
    /// All `RELIABLE=` together.
    reliable: Option<HostList>,
    maxima: MaximaReader,
    timeouts: TimeoutReader,
    soxconf: SoxConfReader,
    notices: Vec<String>,
}

impl Draft {
    fn option(&mut self, word: &Word, lookup: &mut Lookup<'_>) -> Result<(), Problem> {
        let (option, value) = word.text.split_at_checked(2).unwrap_or((&word.text, ""));
        secrets::check(&word.text)?;
        match (option, self.link.foreground.is_some()) {
            ("-F", _) => {
                foreground::function(value)?;
                self.link.foreground = Some(word.clone());
                Ok(())
            }
            ("-P", foreground) => {
                let list = portlist::of_p(word, value)?;
                if !foreground && list.iter().any(|entrance| entrance.proxy_header) {
                    return Err(Problem::new(
                        "a PROXY header is taken at entrances for streams only",
                        "leave ?proxy=accept out, or write PORT= for an entrance",
                    ));
                }
                let all = if foreground { &mut self.entrances } else { &mut self.link.listen };
                portlist::add(all, list, word)
            }
            // Another entrance in the original, as -P is; with a host it was meant as an exit.
            ("-Q", false) if PortList::parse(value).is_ok() && !value.contains(':') => {
                self.notices.push(format!("{word} without -Fsockmux is -P{}", plain(value)));
                portlist::add(&mut self.link.listen, portlist::of_p(word, value)?, word)
            }
            (_, false) => Err(unsupported::without_foreground(option)),
            ("-A", true) => portlist::add(&mut self.link.listen, foreground::accept(value)?, word),
            ("-C", true) => self.link.connect(foreground::connect(value)?, word),
            ("-I", true) => self.link.carry(Carrier::Input(carrier::path(value)?), word),
            ("-O", true) => self.link.carry(Carrier::Output(carrier::path(value)?), word),
            ("-X", true) => self.link.carry(Carrier::Both(carrier::both(value)?), word),
            (_, true) => self.exit(foreground::exit(value)?, InList::default(), word, lookup),
        }
    }

    fn parameter(
        &mut self,
        word: &Word,
        files: &dyn Files,
        lookup: &mut Lookup<'_>,
    ) -> Result<(), Problem> {
        let Some((name, value)) = word.text.split_once('=') else {
            return Err(Problem::new("not NAME=value", suggest::for_bare_word(&word.text)));
        };
        secrets::check(&word.text)?;
        match name {
            "SERVER" => {
                let mut list = InList::default();
                let server = server::parse_server(value, &mut |words| {
                    let words = in_list::expand(words, word, files)?;
                    let named;
                    (list, named) = in_list::read(&words, word, lookup)?;
                    Ok(named)
                })?;
                match server {
                    Server::Receptor => {
                        self.link.receptor(word);
                        Ok(())
                    }
                    Server::Connector(target) => self.link.connect(target, word),
                    Server::Carrier(carrier) => self.link.carry(carrier, word),
                    Server::Exit(exit) => self.exit(exit, list, word, lookup),
                    Server::Proxy(exit) => {
                        self.proxies.push(word.clone());
                        self.exit(exit, list, word, lookup)
                    }
                    Server::Relay(server, transport) => self.relay(server, transport, word),
                }
            }
            "DEST" => self.exit(exit::of_dest(value)?, InList::default(), word, lookup),
            "PORT" if value.starts_with("unix:") => {
                self.unix_entrance(unix::entrance(&value[5..])?, word)
            }
            "PORT" => {
                let list = PortList::parse(value)?;
                self.entrances_at_peer.extend(list.at_peer().map(|port| (port, word.clone())));
                portlist::add(&mut self.entrances, list.entrances(), word)
            }
            "RELIABLE" => {
                HostList::add_to(&mut self.reliable, HostList::parse(value, lookup)?);
                Ok(())
            }
            "MAXIMA" => self.maxima.add(value, &mut self.notices),
            "PERMIT" => self.permit(value, word, lookup),
            "AUTHORIZER" => {
                let is_shown = word.is_argument();
                authorizer::add(value, is_shown, &mut self.authorizers, &mut self.notices)?;
                self.authorizer_words.push(word.clone());
                Ok(())
            }
            "TIMEOUT" => self.timeouts.add(value, &mut self.notices),
            "SOXCONF" => self.soxconf.add(value, &mut self.notices),
            "STLS" => self.encryption.stls(value, word),
            "TLSCONF" => self.encryption.conf(value, word, files, &mut self.notices),
            _ => Err(unsupported::parameter(name).unwrap_or_else(|| {
                Problem::new(
                    format!("{} is not a parameter", quoted(name)),
                    suggest::remedy(name, &NAMES),
                )
            })),
        }
    }

    fn unix_entrance(&mut self, entrance: UnixEntrance, word: &Word) -> Result<(), Problem> {
        let same = |(other, _): &&(UnixEntrance, Word)| other.path == entrance.path;
        if let Some((_, other)) = self.unix_entrances.iter().find(same) {
            return Err(Problem::new(
                format!("{other} is the same socket"),
                "leave one of them out",
            ));
        }
        if self.unix_entrances.len() == ENTRANCES_MAX {
            return Err(portlist::too_many(ENTRANCES_MAX + 1));
        }
        self.unix_entrances.push((entrance, word.clone()));
        Ok(())
    }

    fn permit(&mut self, value: &str, word: &Word, lookup: &mut Lookup<'_>) -> Result<(), Problem> {
        if self.permits.len() == PERMITS_MAX {
            return Err(permit::too_many());
        }
        self.permits.push(permit::parse(value, &word.text, lookup)?);
        self.permit_words.push(word.clone());
        Ok(())
    }

    fn relay(
        &mut self,
        server: ExitKind,
        transport: Transport,
        word: &Word,
    ) -> Result<(), Problem> {
        if let Some((_, _, other)) = &self.relay {
            return Err(Problem::new(
                format!("there is one plain relay already, by {other}"),
                "leave one of them out, or run a second process",
            ));
        }
        self.relay = Some((server, transport, word.clone()));
        Ok(())
    }

    fn exit(
        &mut self,
        exit: ExitWords,
        mut list: InList,
        word: &Word,
        lookup: &mut Lookup<'_>,
    ) -> Result<(), Problem> {
        let ExitWords { protocol, way, proxy_header, clients } = exit;
        let (clients, peers) = peers::of_exit(clients)?;
        let clients = clients.map(|list| HostList::parse(&list, lookup)).transpose()?;
        self.notices.append(&mut list.notices);
        let proxy = match way {
            ExitKind::Proxy(proxy) => Some(proxy),
            _ => None,
        };
        let (options, timeouts) = list.finish(proxy)?;
        let options = ExitOptions { peers, ..options };
        self.exit_timeouts.extend(timeouts.map(|timeouts| (self.exits.len(), timeouts)));
        let source = word.text.clone();
        let name = way.name();
        let exit = Exit { protocol, way, name, proxy_header, clients, options, source };
        let (transport, source) = (exit.transport(), plain(&word.text));
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
            self.never_used.push(format!(
                "{source} is never used: {open} stands before it and takes every {all}"
            ));
        } else if exit.is_for_peer(None)
            && exit.clients.as_ref().is_none_or(HostList::permits_everybody)
        {
            self.open_exits.push((transport, source.clone()));
        }
        if exit.clients.as_ref().is_some_and(HostList::widens_hosts_by_port) {
            self.notices.push(format!(
                "{source} lets in the hosts of its list and, from any host, whoever came in by \
                 the port of its -P element"
            ));
        }
        if exit.protocol == "ftps" {
            self.notices.push(format!(
                "{source} carries FTP commands only: data connections are not forwarded"
            ));
        }
        self.exits.push(exit);
        Ok(())
    }

    fn finish(mut self, files: &dyn Files) -> Result<Plan, Failure> {
        if let Some((server, transport, word)) = self.relay.take() {
            return self.finish_relay(server, transport, &word, files);
        }
        if let Some(word) = self.proxies.first().cloned() {
            self.without_link(&word)?;
        }
        permit::check(&self.permits, &self.exits, !self.entrances.is_empty())
            .map_err(|(place, problem)| Failure::at(&self.permit_words[place], &problem))?;
        authorizer::check(&self.authorizers, &self.exits)
            .map_err(|(place, problem)| Failure::at(&self.authorizer_words[place], &problem))?;
        self.notices.extend(authorizer::notices(&self.authorizers, &self.exits));
        if self.proxies.is_empty() {
            checks::link_transport(&self.link.listen)?;
        }
        let any_way = self.any_entrance().is_some() || !self.exits.is_empty();
        if !any_way && !self.opens_on_request() {
            let receptor = self.link.listen.first().map(|(_, word)| word);
            return Err(checks::nothing_flows(self.link.word().or(receptor)));
        }
        checks::distinct(&self.entrances)?;
        self.services_can_be_counted(&self.entrances)?;
        let hello_is_set = self.timeouts.is_set("acc");
        let (mut timeouts, mut soxconf) = (self.timeouts.finish(), self.soxconf.finish());
        if !self.link.listen.is_empty() && !hello_is_set {
            timeouts.hello = Some(Duration::from_secs(STRANGER_SECS));
        }
        if !self.proxies.is_empty() {
            // This process is its own peer: of the newest protocol, and never silent.
            (timeouts.hello, timeouts.keepalive, soxconf.newest_protocol) = (None, None, 1);
        }
        for (place, own) in self.exit_timeouts {
            self.exits[place].options.timeouts = Some(own.finish_over(&timeouts));
        }
        let newest_protocol = soxconf.newest_protocol;
        let link = match self.proxies.is_empty() {
            true => self.link.finish(&self.entrances, newest_protocol, &mut self.notices)?,
            false => LinkPlan::Loopback,
        };
        let encryption = self.encryption.finish(&link, files)?;
        let (asked, of) = (&self.entrances_at_peer, encryption.as_ref());
        let entrances_at_peer = at_peer::finish(asked, &self.exits, of, newest_protocol)?;
        let exits = self.exits.iter().map(|exit| (&*exit.source, &*exit.options.peers));
        let ports = self.entrances.iter().map(|(port, word)| (&*word.text, &*port.peers));
        let sockets = self.unix_entrances.iter().map(|(path, word)| (&*word.text, &*path.peers));
        peers::check(exits.chain(ports).chain(sockets), encryption.as_ref(), &mut self.notices)?;
        let entrances = self.entrances.iter().map(|(entrance, _)| entrance.bind.port);
        let listed = encryption.as_ref().map_or(&[][..], |encryption| &encryption.listed);
        self.notices.extend(peer_options::notices(listed, &self.exits, entrances));
        self.notices.extend(peer_options::never_used(listed, self.never_used));
        Ok(Plan {
            encryption,
            link,
            entrances: self.entrances.into_iter().map(|(entrance, _)| entrance).collect(),
            unix_entrances: self.unix_entrances.into_iter().map(|(entrance, _)| entrance).collect(),
            entrances_at_peer,
            exits: self.exits,
            reliable: self.reliable,
            maxima: self.maxima.finish(),
            permits: self.permits,
            authorizers: self.authorizers,
            timeouts,
            soxconf,
            privileges: Privileges::default(),
            takeover: None,
            access_log: None,
            control: super::plan::Control::Auto,
            notices: self.notices,
        })
    }

    /// Whether peers may ask this end for entrances.
    fn opens_on_request(&self) -> bool {
        !self.link.listen.is_empty() && self.encryption.reads_peers()
    }

    /// The word of an entrance, if there is one.
    fn any_entrance(&self) -> Option<&Word> {
        let here = self.entrances.iter().map(|(_, word)| word);
        let sockets = self.unix_entrances.iter().map(|(_, word)| word);
        here.chain(sockets).chain(self.entrances_at_peer.iter().map(|(_, word)| word)).next()
    }

    /// Proxies without a persistent connection: `-P` is the entrance, and there is no other.
    fn without_link(&mut self, word: &Word) -> Result<(), Failure> {
        let entrance = self.any_entrance();
        let is_other = |exit: &&Exit| self.proxies.iter().all(|word| word.text != exit.source);
        let exit = self.exits.iter().find(is_other).map(|exit| plain(&exit.source));
        let proxy = plain(&word.text);
        if let Some(other) = self.link.word().or(entrance).map(|word| plain(&word.text)).or(exit) {
            return Err(Failure::at(
                word,
                &Problem::new(
                    format!("it serves clients without a tunnel, which {other} is about"),
                    format!(
                        "leave {other} out and let clients come in by -P[host]:port, or write \
                         {proxy},-in to make it an exit for streams of the peer"
                    ),
                ),
            ));
        }
        let listen = std::mem::take(&mut self.link.listen);
        let (what, remedy) = match listen.iter().find(|(own, _)| own.transport == Transport::Udp) {
            Some((_, udp)) => (
                format!("clients of a proxy come in by TCP, and {udp} takes in UDP"),
                "leave /udp out: UDP ASSOCIATE opens its ports by itself".to_owned(),
            ),
            None if listen.is_empty() => (
                "there is no entrance for its clients".to_owned(),
                format!("add -P[host]:port, as in -P:8080, or write {proxy},-in for an exit"),
            ),
            None => {
                checks::distinct(&listen)?;
                self.entrances = listen;
                return Ok(());
            }
        };
        Err(Failure::at(word, &Problem::new(what, remedy)))
    }

    /// `MAXIMA=service` counts accepted connections, so the entrance cannot be one of datagrams.
    fn services_can_be_counted(&self, in_by: &[(Entrance, Word)]) -> Result<(), Failure> {
        let udp = |(entrance, _): &(Entrance, Word)| entrance.transport == Transport::Udp;
        let only_udp = !in_by.is_empty() && in_by.iter().all(udp) && self.unix_entrances.is_empty();
        match self.maxima.counts_services() && only_udp {
            true => Err(Failure::new(
                "MAXIMA=service counts connections, and only UDP comes in here; leave it out, or \
                 add an entrance for TCP",
            )),
            false => Ok(()),
        }
    }

    /// A plain relay: `-P` is the entrance, and there is no other.
    fn finish_relay(
        self,
        server: ExitKind,
        transport: Transport,
        word: &Word,
        files: &dyn Files,
    ) -> Result<Plan, Failure> {
        let udp = suffix(transport);
        let other = self.link.word().or(self.any_entrance()).map(|word| plain(&word.text));
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
        if self.link.listen.is_empty() {
            return Err(Failure::at(
                word,
                &Problem::new(
                    "there is no entrance for clients of the plain relay",
                    format!("add -P[host]:port{udp}, as in -P:8080{udp}"),
                ),
            ));
        }
        permit::check_relay(&self.permits, transport.relay_word())
            .map_err(|(place, problem)| Failure::at(&self.permit_words[place], &problem))?;
        authorizer::check(&self.authorizers, &[])
            .map_err(|(place, problem)| Failure::at(&self.authorizer_words[place], &problem))?;
        checks::relay_transport(&self.link.listen, transport, word)?;
        checks::distinct(&self.link.listen)?;
        self.services_can_be_counted(&self.link.listen)?;
        checks::relay(&self.link.listen, (&server, transport), word)?;
        let binds = self.link.listen.into_iter().map(|(entrance, _)| entrance.bind).collect();
        let link = LinkPlan::Relay { binds, server, transport };
        Ok(Plan {
            encryption: self.encryption.finish(&link, files)?,
            link,
            entrances: Vec::new(),
            unix_entrances: Vec::new(),
            entrances_at_peer: Vec::new(),
            exits: Vec::new(),
            reliable: self.reliable,
            maxima: self.maxima.finish(),
            permits: self.permits,
            authorizers: Vec::new(),
            timeouts: self.timeouts.finish(),
            soxconf: self.soxconf.finish(),
            privileges: Privileges::default(),
            takeover: None,
            access_log: None,
            control: super::plan::Control::Auto,
            notices: self.notices,
        })
    }
}
