//! Dispatch: routes completions, resolver answers and effects to their planes. The event loop calls
//! it for each completion. This is the only module that knows all planes.

use super::context::{Effect, Lookup};
use super::dialer::dial::{DialError, Owner};
use super::token::{self, Kind};
use super::{Drain, Worker};
use crate::io::driver::{BufferClass, Completion, Driver, Fd, Outcome};
use crate::io::resolver::Answer;
use crate::worker::datagram::PortName;
use crate::worker::datagram::coalesce::Source;

impl<D: Driver> Worker<D> {
    pub(super) fn dispatch(&mut self, completion: Completion) {
        let Completion { token, more, outcome } = completion;
        let (kind, key) = token::read(token);
        match (kind, outcome) {
            (Kind::ConnReceive, Outcome::Received(got)) => {
                self.conn_received(key, BufferClass::Small, more, got);
            }
            (Kind::ConnReceiveBulk, Outcome::Received(got)) => {
                self.cx.waiters.bulk_receives -= 1;
                self.conn_received(key, BufferClass::Bulk, more, got);
            }
            (Kind::ConnSend, Outcome::Sent { result, gather }) => {
                self.conn_sent(key, result, gather);
            }
            (Kind::LinkReceive, Outcome::Received(got)) => self.link_received(key, more, got),
            (Kind::LinkSend, Outcome::Sent { result, gather }) => {
                self.link_sent(key, result, gather);
            }
            (Kind::Accept, Outcome::Accepted(got)) => {
                self.accepted(key, more, got);
            }
            (Kind::ConnReady, Outcome::Polled(events)) => self.conn_ready(key, events),
            (Kind::ConnWritable, Outcome::Polled(_)) => self.conn_writable(key),
            (Kind::ConnBroken, Outcome::Polled(events)) => self.conn_broken(key, events),
            (Kind::PortReady, Outcome::Polled(_)) => {
                self.read_source(Source::Port(PortName::Entrance(token::number(token))));
            }
            (Kind::AskedReady, Outcome::Polled(_)) => {
                self.read_source(Source::Port(PortName::Asked(key)));
            }
            (Kind::AskedAccept, Outcome::Accepted(got)) => self.asked_accepted(key, more, got),
            (Kind::FlowReady, Outcome::Polled(_)) => self.read_source(Source::Flow(key)),
            (Kind::LinkReady, Outcome::Polled(events)) => self.link_ready(key, events),
            (Kind::LinkWritable, Outcome::Polled(_)) => self.link_writable(key),
            (Kind::LinkBroken, Outcome::Polled(events)) => self.link_broken(key, events),
            (Kind::LinkCommandExit, Outcome::Polled(_)) => {
                let (drains, number) = (self.drain != Drain::No, token::number(token));
                if let Some(connector) = &mut self.connector {
                    connector.command_exited(&mut self.cx, number, drains);
                }
            }
            (Kind::LinkCommandStderr, Outcome::Polled(Ok(_))) => {
                if let Some(connector) = &mut self.connector {
                    connector.on_command_stderr(&mut self.cx, token::number(token));
                }
            }
            (Kind::LinkCommandStderr, Outcome::Polled(Err(_))) => {}
            (Kind::Connect, Outcome::Connected(result)) => self.cx.attempt_ended(key, result),
            (Kind::Wake, Outcome::Polled(_)) => self.woken(),
            (Kind::HeaderReady, Outcome::Polled(_)) => self.read_header(key),
            (Kind::ExecStderr, Outcome::Polled(_)) => self.execs.on_stderr(&mut self.cx, key),
            (Kind::ExecExit, Outcome::Polled(_)) => {
                let conns = &self.conns;
                self.execs.on_exit(&mut self.cx, key, |key| conns.get(key).is_some());
            }
            (Kind::ExpectedAccept, Outcome::Accepted(got)) => {
                self.expected_accepted(key, more, got)
            }
            (kind, outcome) => self.relay.on_completion(&mut self.cx, kind, key, outcome),
        }
    }

    /// Routes an answer of the resolver to the plane that requested it.
    pub(super) fn resolved(&mut self, answer: Answer<Lookup>) {
        match answer {
            Answer::Client { client, name } => self.name_found(client, name),
            Answer::Addresses { token: Lookup::Dial(key), addresses } => {
                self.cx.dial_resolved(key, addresses);
            }
            Answer::Addresses { token: Lookup::Flow(key), addresses } => {
                let (cx, tunnels) = (&mut self.cx, &mut self.tunnels);
                self.datagrams.flow_resolved(cx, tunnels, key, addresses);
            }
            Answer::Addresses { token: Lookup::Destination(key, place), addresses } => {
                self.datagrams.destination_resolved(&mut self.cx, (key, place), addresses);
            }
            Answer::Addresses { token: Lookup::Host(key), addresses } => {
                self.host_resolved(key, addresses);
            }
        }
    }

    /// Applies queued effects, including those queued meanwhile.
    #[inline]
    pub(super) fn apply_effects(&mut self) {
        while let Some(effect) = self.cx.effects.pop_front() {
            self.apply(effect);
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Dialled { owner, result } => self.dialled(owner, result),
            Effect::RefuseStream { stream: (tunnel, stream), client, reason, tried } => {
                self.refuse_stream(tunnel, stream, client, &reason, tried);
            }
            Effect::LinkUp(link) => self.begin_connector_tunnel(link),
            Effect::PauseClients => self.pause_clients(),
            Effect::ResumeClients => self.resume_clients(),
        }
    }

    fn dialled(&mut self, owner: Owner, result: Result<Fd, DialError>) {
        match (owner, result) {
            (Owner::Connector, result) => {
                if let Some(connector) = &mut self.connector {
                    connector.on_dialled(&mut self.cx, result);
                }
            }
            (Owner::Exit(key), Ok(fd)) => self.exit_connected(key, fd),
            (Owner::Exit(key), Err(error)) => self.exit_unreachable(key, &error.to_string()),
            (Owner::Conversation(key), Ok(fd)) => self.server_connected(key, fd),
            (Owner::Conversation(key), Err(error)) => {
                self.upstream_unreachable(key, error.unreached)
            }
            (Owner::Pair(key), result) => self.relay.on_dialled(&mut self.cx, key, result),
        }
    }
}
