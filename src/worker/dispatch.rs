//! Dispatch: routes completions, resolver answers and effects to their planes. The event loop calls
//! it for each completion. With [`super::turn`] it is all that knows all planes. [`control`] answers
//! operators.

mod control;

use std::rc::Rc;

use tracing::{info, warn};

use super::context::dialer::dial::{DialError, Owner};
use super::context::{Drain, Effect, Lookup};
use super::message::{FlowOrigin, Incoming, NameWaiter, PortName};
use super::purpose::Purpose;
use super::signals::Demand;
use super::supervisor::Supervisor;
use super::takeover::Takeover;
use super::token::{self, Kind, StreamOwner};
use super::{Key, Worker};
use crate::control::page::Part;
use crate::io::control::desk as control_desk;
use crate::io::datagram::Received;
use crate::io::driver::{BufferClass, Completion, Driver, Fd, Outcome};
use crate::io::resolver::Answer;
use crate::io::takeover::desk::{Reply, Request};
use crate::io::takeover::successor::Succession;
use crate::session::{Event, NO_ADDRESS, Related};
use crate::wire::Protocol;
use crate::worker::datagram::coalesce::Source;
use crate::worker::datagram::datagrams::datagrams;

impl<D: Driver> Worker<D> {
    pub(super) fn dispatch(&mut self, completion: Completion) {
        let Worker { cx, streams, ingress, proxies, forwards, datagrams, relay, .. } = self;
        let Completion { token, more, outcome } = completion;
        let (kind, key) = token::read(token);
        match (kind, outcome) {
            (Kind::ConnReceive, Outcome::Received(got)) => {
                streams.conn_received(cx, key, BufferClass::Small, more, got);
            }
            (Kind::ConnReceiveBulk, Outcome::Received(got)) => {
                cx.waiters.bulk_receives -= 1;
                streams.conn_received(cx, key, BufferClass::Bulk, more, got);
            }
            (Kind::ConnSend, Outcome::Sent { result, gather }) => {
                streams.conn_sent(cx, key, result, gather);
            }
            (Kind::LinkReceive, Outcome::Received(got)) => {
                streams.link_received(cx, datagrams, key, more, got)
            }
            (Kind::LinkSend, Outcome::Sent { result, gather }) => {
                streams.link_sent(cx, key, result, gather);
            }
            (Kind::Accept, Outcome::Accepted(got)) => {
                ingress.accepted(cx, streams, datagrams, key, more, got);
            }
            (Kind::ConnReady, Outcome::Polled(events)) => streams.conn_ready(cx, key, events),
            (Kind::ConnWritable, Outcome::Polled(_)) => streams.conn_writable(cx, key),
            (Kind::ConnBroken, Outcome::Polled(events)) => streams.conn_broken(cx, key, events),
            (Kind::PortReady, Outcome::Polled(_)) => {
                self.read_source(Source::Port(PortName::Entrance(token::number(token))));
            }
            (Kind::AskedReady, Outcome::Polled(_)) => {
                self.read_source(Source::Port(PortName::Asked(key)));
            }
            (Kind::GivenReady, Outcome::Polled(_)) => {
                self.read_source(Source::Port(PortName::Given(key)));
            }
            (Kind::AskedAccept, Outcome::Accepted(got)) => {
                forwards.asked_accepted(cx, streams, datagrams, key, more, got)
            }
            (Kind::FlowReady, Outcome::Polled(_)) => self.read_source(Source::Flow(key)),
            (Kind::LinkReady, Outcome::Polled(events)) => {
                streams.link_ready(cx, datagrams, key, events)
            }
            (Kind::LinkWritable, Outcome::Polled(_)) => streams.link_writable(cx, key),
            (Kind::LinkBroken, Outcome::Polled(events)) => streams.link_broken(cx, key, events),
            (Kind::LinkCommandExit, Outcome::Polled(_)) => {
                let (drains, number) = (cx.drain != Drain::No, token::number(token));
                if let Some(connector) = streams.connector_mut() {
                    connector.command_exited(cx, number, drains);
                }
            }
            (Kind::LinkCommandStderr, Outcome::Polled(Ok(_))) => {
                if let Some(connector) = streams.connector_mut() {
                    connector.on_command_stderr(cx, token::number(token));
                }
            }
            (Kind::LinkCommandStderr, Outcome::Polled(Err(_))) => {}
            (Kind::Connect, Outcome::Connected(result)) => cx.attempt_ended(key, result),
            (Kind::Wake, Outcome::Polled(_)) => self.woken(),
            (Kind::HeaderReady, Outcome::Polled(_)) => {
                ingress.read_header(cx, streams, datagrams, key)
            }
            (Kind::ExecStderr, Outcome::Polled(_)) => streams.execs_mut().on_stderr(cx, key),
            (Kind::ExecExit, Outcome::Polled(_)) => streams.exec_exited(cx, key),
            (Kind::ExpectedAccept, Outcome::Accepted(got)) => {
                proxies.expected_accepted(cx, streams, key, more, got)
            }
            (kind, outcome) => relay.on_completion(cx, kind, key, outcome),
        }
    }

    /// The wake channel is readable.
    fn woken(&mut self) {
        for demand in self.signals.read() {
            self.obey(demand);
        }
        while let Some(answer) = self.cx.resolver.answer() {
            self.resolved(answer);
            self.apply_effects();
        }
        if let Some(lookout) = &self.cx.lookout {
            self.streams.peers_looked_at(lookout.ended());
        }
        self.signals.watch_wake(&mut self.cx);
    }

    fn obey(&mut self, demand: Demand) {
        match demand {
            Demand::Stop => self.stop(),
            // After the soft limit the kernel sends this every second, until it kills at the hard
            // limit.
            Demand::OutOfTime if self.cx.drain != Drain::No => {}
            Demand::OutOfTime => {
                warn!("SIGXCPU: the limit of processor time (ulimit -t) is reached");
                self.stop();
            }
            Demand::LogState => self.log_state(),
            Demand::Reopen => self.cx.reopen_access_log(),
            Demand::ChildrenChanged => {
                self.cx.watchdog.look();
                self.signals.children_changed();
                self.reap_orphans();
            }
            Demand::TakeOver => self.serve_successor(),
            Demand::Control => self.serve_operator(),
        }
    }

    /// An operator asks. One question at a time is under way.
    fn serve_operator(&mut self) {
        let Worker { cx, streams, ingress, datagrams, relay, .. } = self;
        let Some((number, ask)) = self.operators.as_ref().and_then(control_desk::Desk::ask) else {
            return;
        };
        let part = control::answer(ask, cx, streams, (ingress, datagrams, relay));
        let part = part.unwrap_or_else(|| {
            // A second stop would end the process at once.
            let drains = self.cx.drain != Drain::No;
            if !drains {
                self.stop();
            }
            Part::Drains(drains)
        });
        if let Some(desk) = &self.operators {
            desk.answer(number, part);
        }
    }

    /// A process that takes over has come, is ready, or has failed.
    fn serve_successor(&mut self) {
        if let Some(answer) = self.succession.as_ref().and_then(Succession::answer) {
            match answer {
                Ok(()) => self.has_taken_over(),
                Err(error) => self.is_not_taken_over(&error.to_string()),
            }
        }
        // Who would take over from this process has to wait until it has taken over itself.
        if self.succession.is_some() {
            return;
        }
        while let Some(takeover) = &mut self.takeover {
            match takeover.desk.request() {
                None => return,
                Some(Request::Sockets) => {
                    let sockets = self.ingress.offers().chain(self.datagrams.offers());
                    let has_tunnel = !self.streams.tunnels().up().is_empty();
                    let offers = takeover.offer(sockets);
                    takeover.desk.reply(match offers {
                        Ok(offers) => Reply::Sockets { offers, has_tunnel },
                        Err(error) => Reply::Failed(error),
                    });
                }
                Some(Request::GoOn) => {
                    takeover.withdraw();
                    takeover.desk.reply(Reply::Done);
                }
                Some(Request::Leave(numbers)) => {
                    let taken = takeover.take(&numbers);
                    let Some(Takeover { desk, .. }) = self.takeover.take() else { return };
                    info!(sockets = taken.len(), "a new process has taken over");
                    self.leave_sockets(desk, &taken);
                    self.supervisor.iter_mut().for_each(Supervisor::leave);
                    self.stop();
                }
            }
        }
    }

    /// Logs the current state and the totals since start.
    fn log_state(&mut self) {
        let tunnels = self.streams.tunnels();
        let (bytes_in, bytes_out) = tunnels.log_state(self.cx.now);
        info!(
            tunnels = tunnels.len(),
            strangers = tunnels.stranger_count(),
            up = tunnels.up().len(),
            streams = self.streams.conn_count(),
            relayed = self.relay.len(),
            flows = self.datagrams.len(),
            commands = self.streams.execs().len(),
            bytes_in = self.cx.counters.past_bytes_in + bytes_in,
            bytes_out = self.cx.counters.past_bytes_out + bytes_out,
            relayed_up = self.cx.counters.relayed_up,
            relayed_down = self.cx.counters.relayed_down,
            datagrams_in = self.cx.counters.datagrams_in,
            datagrams_out = self.cx.counters.datagrams_out,
            draining = self.cx.drain != Drain::No,
            secs = self.cx.now.0 / 1_000_000,
            "state"
        );
    }

    /// Routes an answer of the resolver to the plane that requested it.
    fn resolved(&mut self, answer: Answer<Lookup>) {
        let Worker { cx, streams, ingress, proxies, datagrams, .. } = self;
        match answer {
            Answer::Client { client, name } => ingress.name_found(cx, client, name),
            Answer::Addresses { token: Lookup::Dial(key), addresses } => {
                cx.dial_resolved(key, addresses);
            }
            Answer::Addresses { token: Lookup::Flow(key), addresses } => {
                let tunnels = streams.tunnels_mut();
                datagrams.flow_resolved(cx, tunnels, key, addresses);
            }
            Answer::Addresses { token: Lookup::Destination(key, place), addresses } => {
                datagrams.destination_resolved(cx, (key, place), addresses);
            }
            Answer::Addresses { token: Lookup::Host(key), addresses } => {
                proxies.host_resolved(cx, streams, key, addresses);
            }
        }
    }

    /// Reads a socket of datagrams, up to the maximum of a turn.
    pub(super) fn read_source(&mut self, source: Source) {
        let (cx, tunnels) = (&mut self.cx, self.streams.tunnels_mut());
        let Some(mut read) = self.datagrams.begin_read(cx, tunnels, source) else { return };
        while let Some(got) = read.take_next() {
            match source {
                Source::Port(name) => self.client_sent(name, got),
                Source::Flow(key) => {
                    let (cx, tunnels) = (&mut self.cx, self.streams.tunnels_mut());
                    self.datagrams.server_answered(cx, tunnels, key, got);
                }
            }
        }
        self.datagrams.end_read(&mut self.cx, read);
    }

    /// Datagrams have come to a port: a client without a flow gets one, or they are dropped.
    fn client_sent(&mut self, port: PortName, got: Received<'_>) {
        let Some(client) = got.from else { return };
        let origin = FlowOrigin { port, client, own: got.own };
        let count = datagrams(got.payload.len(), got.size_bytes);
        self.cx.counters.datagrams_in += count;
        let found = self.datagrams.find(&origin).or_else(|| match port {
            PortName::Asked(key) => self.forwards.begin_asked_flow(
                &mut self.cx,
                &mut self.streams,
                &mut self.datagrams,
                key,
                origin,
            ),
            PortName::Entrance(_) | PortName::Given(_) => self.ingress.begin_flow(
                &mut self.cx,
                &mut self.streams,
                &mut self.datagrams,
                origin,
            ),
        });
        let (cx, tunnels) = (&mut self.cx, self.streams.tunnels_mut());
        match found {
            Some(key) => self.datagrams.client_sent(cx, tunnels, key, got),
            None => cx.counters.datagrams_dropped += count,
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
        let Worker { cx, streams, ingress, proxies, forwards, datagrams, relay, .. } = self;
        match effect {
            Effect::Dialled { owner, result } => self.dialled(owner, result),
            Effect::RefuseStream { stream: (tunnel, stream), client, reason, tried } => {
                streams.refuse_stream(cx, tunnel, stream, client, &reason, tried);
            }
            Effect::LinkUp(link) => streams.begin_connector_tunnel(cx, link),
            Effect::PauseClients => ingress.pause_clients(cx),
            Effect::ResumeClients => ingress.resume_clients(cx, streams),
            Effect::HoldClients => ingress.hold_clients(cx),
            Effect::HoldExpired(key) => ingress.client_hold_expired(cx, streams, key),
            Effect::Session { tunnel, .. } if streams.tunnels().get(tunnel).is_none() => {}
            Effect::Session { tunnel, event } => {
                self.handle_event(tunnel, event);
                // Behind what the event has caused: payload of a stream that begins, for example,
                // must find its flow.
                self.cx.effects.push_back(Effect::Continue { tunnel });
            }
            Effect::Continue { tunnel } => streams.continue_tunnel(cx, datagrams, tunnel),
            Effect::EntrancesOver(tunnel) => {
                ingress.close_entrances_of(cx, streams, datagrams, tunnel);
            }
            Effect::TunnelGone(tunnel) => datagrams.forget_flows_of(cx, tunnel),
            Effect::StreamOver(key) => {
                forwards.close_asked_of(cx, streams, datagrams, key);
                proxies.session_over(cx, streams, key);
            }
            Effect::Handshake(key, event) => proxies.on_handshake(cx, streams, key, event),
            Effect::RelayClient { socket, at } => relay.on_client(cx, socket, at),
            Effect::Pair { client, ends, limit_guard, entry } => {
                relay.join(cx, client, ends, (limit_guard, entry));
            }
            Effect::Resume(waiter) => self.resume(waiter),
            Effect::OpenAssociation { stream, client, session, limit_guard } => {
                let tunnels = streams.tunnels_mut();
                datagrams.open_association(cx, tunnels, stream, client, session, limit_guard);
            }
            Effect::EndAssociations(session) => {
                let tunnels = streams.tunnels_mut();
                datagrams.end_associations(cx, tunnels, session);
            }
        }
    }

    fn dialled(&mut self, owner: Owner, result: Result<Fd, DialError>) {
        let Worker { cx, streams, proxies, relay, .. } = self;
        match (owner, result) {
            (Owner::Connector, result) => {
                if let Some(connector) = streams.connector_mut() {
                    connector.on_dialled(cx, result);
                }
            }
            (Owner::Exit(key), Ok(fd)) => streams.exit_connected(cx, key, fd),
            (Owner::Exit(key), Err(error)) => streams.exit_unreachable(cx, key, &error.to_string()),
            (Owner::Conversation(key), Ok(fd)) => proxies.upstream_connected(cx, streams, key, fd),
            (Owner::Conversation(key), Err(error)) => {
                proxies.upstream_unreachable(cx, streams, key, error.unreached)
            }
            (Owner::Pair(key), result) => relay.on_dialled(cx, key, result),
        }
    }

    /// Handles an event of a session that concerns more than the path of bytes.
    fn handle_event(&mut self, tunnel: Key, event: Event) {
        let Worker { cx, streams, ingress, proxies, forwards, datagrams, .. } = self;
        match event {
            Event::Up { ours, protocol } => self.on_tunnel_up(tunnel, (ours, protocol)),
            Event::Incoming { key: stream, client, entrance, transport, related } => {
                let (exit, call) = (None, None);
                let incoming = Incoming { tunnel, stream, client, entrance, transport, exit, call };
                match related {
                    None => self.open_stream(incoming),
                    Some(Related::Port { user, request }) => {
                        proxies.on_stream_by_port(cx, streams, incoming, (user, request));
                    }
                    Some(Related::Call { user, port }) => {
                        let of = (tunnel, stream);
                        if let Some(call) =
                            forwards.on_callback(cx, streams, of, transport, (user, port))
                        {
                            self.open_stream(call);
                        }
                    }
                }
            }
            Event::PortAsked { user, request, transport } => {
                forwards.port_asked(cx, streams, datagrams, (tunnel, user), request, transport);
            }
            Event::PortClosed { user, request } => {
                forwards.port_not_needed(cx, streams, datagrams, user, request)
            }
            Event::PortGiven { user, request, result } => {
                proxies.port_given(cx, streams, Key::unpack(user), request, result);
            }
            Event::EntranceAsked { request, transport, at } => {
                let asked = (request, transport, at);
                ingress.entrance_asked(cx, streams, datagrams, tunnel, asked);
            }
            Event::EntranceAnswered { request, answer } => {
                ingress.entrance_answered(cx, tunnel, request, answer);
            }
            Event::TakeUp { again } => {
                if streams.on_take_up(cx, datagrams, tunnel, again) {
                    ingress.start_accepting(cx, streams, Purpose::Entrance);
                    ingress.serve_waiting_clients(cx, streams);
                }
            }
            Event::Opened { .. }
            | Event::GoingAway
            | Event::Doubted
            | Event::EndOfData { .. }
            | Event::ReadMore { .. }
            | Event::Ended { .. } => {}
        }
    }

    /// The hello of a tunnel is done: streams may begin.
    fn on_tunnel_up(&mut self, key: Key, of: (bool, Protocol)) {
        let Worker { cx, streams, ingress, datagrams, .. } = self;
        if let Err(reason) = ingress.count_service(cx, Purpose::Receptor) {
            return streams.drop_tunnel(cx, key, &reason);
        }
        let has_entrances = ingress.has_entrances() || datagrams.has_entrances();
        if let Some(succession) = &mut self.succession {
            self.tunnel_by = None;
            if let Err(error) = succession.is_ready() {
                return self.is_not_taken_over(&error.to_string());
            }
        }
        if streams.tunnel_up(cx, key, of, has_entrances) {
            ingress.start_accepting(cx, streams, Purpose::Entrance);
            ingress.serve_waiting_clients(cx, streams);
            ingress.want_entrances(cx, streams, key);
        }
    }

    /// The peer began a stream, or the name of its client is known now: opens its exit.
    fn open_stream(&mut self, incoming: Incoming) {
        let Worker { cx, streams, ingress, proxies, forwards, datagrams, .. } = self;
        if let Some(call) = incoming.call {
            let asker = ingress.asker(cx, &incoming);
            let by = (&asker, ingress.name_of(cx, &asker.caller));
            if forwards.connect_callback(cx, streams, &incoming, call, by).is_err() {
                let client = incoming.client.unwrap_or(NO_ADDRESS);
                ingress.hold_stream(cx, streams, datagrams, &incoming, client);
            }
            return;
        }
        let Some((exit, limit_guard)) = ingress.admit(cx, streams, datagrams, &incoming) else {
            return;
        };
        let incoming = Incoming { exit: Some(Rc::clone(&exit)), ..incoming };
        if let Some(config) = &exit.conversation {
            let asker = ingress.asker(cx, &incoming);
            proxies.open_proxy_session(cx, streams, &incoming, limit_guard, (&exit, config), asker);
        } else if let Some((target, limit_guard)) = streams.open_exit(cx, &incoming, limit_guard) {
            let (stream, client) = ((incoming.tunnel, incoming.stream), incoming.client);
            let client = client.unwrap_or(NO_ADDRESS);
            let tunnels = streams.tunnels_mut();
            let to = (&target, incoming.exit.as_ref());
            datagrams.open_exit_flow(cx, tunnels, stream, client, limit_guard, to);
        }
    }

    /// Serves a client whose name is known now: for a stream that was held, opens its exit and hands
    /// over data delivered meanwhile.
    fn resume(&mut self, waiter: NameWaiter) {
        match waiter {
            NameWaiter::Connection(came) => {
                let Worker { cx, streams, ingress, datagrams, .. } = self;
                ingress.resume_connection(cx, streams, datagrams, came);
            }
            NameWaiter::Stream(key, incoming) => {
                let Some(held) = self.streams.take_held_stream(key) else { return };
                self.open_stream(incoming.clone());
                self.streams.hand_over(&mut self.cx, &incoming, held);
            }
            NameWaiter::Flow(key, incoming) => {
                let Some(runs) = self.datagrams.take_waiting(key) else { return };
                self.datagrams.forget_flow(&mut self.cx, key);
                self.open_stream(incoming.clone());
                let owner = self.streams.owner_of(&incoming);
                let (cx, tunnels) = (&mut self.cx, self.streams.tunnels_mut());
                for (run, size_bytes) in runs {
                    match owner {
                        Some(StreamOwner::Flow(flow)) => {
                            self.datagrams.send_run(cx, tunnels, flow, run, size_bytes);
                        }
                        _ => cx.buffers.give_back(run),
                    }
                }
            }
        }
    }
}
