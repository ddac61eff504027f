//! The link of the persistent connection: all words about it, checked against each other.

use std::path::PathBuf;

use super::carrier::Carrier;
use super::checks;
use super::error::{Failure, Problem};
use super::plan::{Device, Entrance, FlowControl, LinkPlan, Target};
use super::words::Word;

/// The values read so far, each with its word.
#[derive(Default)]
pub(super) struct LinkWords {
    /// `-Fsockmux`: by it `-P` is an entrance, and there is a link even if nothing names one.
    pub(super) foreground: Option<Word>,
    /// Where the persistent connection is accepted; of a plain relay, where clients come in.
    pub(super) listen: Vec<(Entrance, Word)>,
    receptor: Option<Word>,
    made: Option<(LinkPlan, Word)>,
    input: Option<(PathBuf, Word)>,
    output: Option<(PathBuf, Word)>,
}

impl LinkWords {
    /// `SERVER=sockmux`.
    pub(super) fn receptor(&mut self, word: &Word) {
        self.receptor.get_or_insert_with(|| word.clone());
    }

    /// `SERVER=sockmux://host:port` and `-Chost:port`.
    pub(super) fn connect(&mut self, target: Target, word: &Word) -> Result<(), Problem> {
        self.make(LinkPlan::Connect(target), word)
    }

    /// `SERVER=sockmux:kind@what`, and `-I`, `-O` and `-X`.
    pub(super) fn carry(&mut self, carrier: Carrier, word: &Word) -> Result<(), Problem> {
        let (half, path) = match carrier {
            Carrier::Both(device) => return self.make(LinkPlan::Device(device), word),
            Carrier::Command(command) => return self.make(LinkPlan::Command(command), word),
            Carrier::Input(path) => (&mut self.input, path),
            Carrier::Output(path) => (&mut self.output, path),
        };
        let made = self.made.as_ref().map(|(_, word)| word);
        if let Some(other) = made.or(half.as_ref().map(|(_, word)| word)) {
            return Err(second(other));
        }
        *half = Some((path, word.clone()));
        Ok(())
    }

    fn make(&mut self, link: LinkPlan, word: &Word) -> Result<(), Problem> {
        if let Some(other) = self.maker() {
            return Err(second(other));
        }
        self.made = Some((link, word.clone()));
        Ok(())
    }

    /// The word that makes the link by itself: by connecting, opening or running something.
    fn maker(&self) -> Option<&Word> {
        let half = self.input.as_ref().or(self.output.as_ref()).map(|(_, word)| word);
        self.made.as_ref().map(|(_, word)| word).or(half)
    }

    /// A word that asks for a persistent connection, if there is one; `-P` may ask for other
    /// things.
    pub(super) fn word(&self) -> Option<&Word> {
        self.maker().or(self.receptor.as_ref()).or(self.foreground.as_ref())
    }

    /// The link in the end. Things worth knowing go to `notices`; `newest_protocol` is that of the
    /// plan.
    pub(super) fn finish(
        self,
        entrances: &[(Entrance, Word)],
        newest_protocol: u8,
        notices: &mut Vec<String>,
    ) -> Result<LinkPlan, Failure> {
        checks::distinct(&self.listen)?;
        if let Some(word) = self.maker() {
            self.not_accepted_too(word)?;
        }
        let LinkWords { foreground, listen, receptor, made, input, output } = self;
        match (made, input, output) {
            (Some((link, word)), ..) => {
                if let LinkPlan::Connect(target) = &link {
                    checks::connector(target, &word, entrances)?;
                }
                xon_xoff(&link, &word, newest_protocol, notices)?;
                Ok(link)
            }
            (None, Some((input, _)), Some((output, word))) => {
                if input == output {
                    let problem = Problem::new(
                        "it is both input and output: this process would talk to itself",
                        "give two, as mkfifo makes them; the peer has them the other way round",
                    );
                    return Err(Failure::at(&word, &problem));
                }
                Ok(LinkPlan::Device(Device::Pair { input, output }))
            }
            (None, Some((_, word)), None) => Err(half(&word, "output", "commout@PATH", "-OPATH")),
            (None, None, Some((_, word))) => Err(half(&word, "input", "commin@PATH", "-IPATH")),
            (None, None, None) if !listen.is_empty() => {
                checks::listen(&listen, entrances)?;
                Ok(LinkPlan::Listen(
                    listen.into_iter().map(|(entrance, _)| entrance.bind).collect(),
                ))
            }
            (None, None, None) => match (receptor, foreground) {
                (Some(receptor), foreground) => Err(Failure::at(
                    &receptor,
                    &Problem::new(
                        "there is no address to accept the persistent connection at",
                        match foreground {
                            Some(_) => "add -A[host]:port, as in -A:9000",
                            None => "add -P[host]:port, as in -P:9000",
                        },
                    ),
                )),
                (None, Some(_)) => Ok(LinkPlan::Stdio),
                (None, None) => Err(Failure::new(
                    "there is no persistent connection; add -P[host]:port to accept it or \
                     SERVER=sockmux://host:port to make it",
                )),
            },
        }
    }

    /// `word` makes a link: then there is none to accept.
    fn not_accepted_too(&self, word: &Word) -> Result<(), Failure> {
        let connects = matches!(self.made, Some((LinkPlan::Connect(_), _)));
        let remedy = match (connects, &self.foreground) {
            (true, _) => "leave one of them out: one end connects, the other accepts",
            (false, None) => "leave one of them out, or write PORT= for an entrance",
            (false, Some(_)) => "leave one of them out, or write -P for an entrance",
        };
        let what = match (self.listen.first(), &self.receptor) {
            (Some((_, listen)), _) => {
                format!("the persistent connection is also accepted, by {listen}")
            }
            (None, Some(receptor)) => {
                format!("{receptor} asks to accept the persistent connection")
            }
            (None, None) => return Ok(()),
        };
        Err(Failure::at(word, &Problem::new(what, remedy)))
    }
}

/// A link that is named beside another.
fn second(other: &Word) -> Problem {
    Problem::new(
        format!("there is one persistent connection already, by {other}"),
        "leave one of them out, or run a second process",
    )
}

/// One direction was named, the other not.
fn half(word: &Word, missing: &str, parameter: &str, option: &str) -> Failure {
    let add = match word.text.starts_with('-') {
        true => option.to_owned(),
        false => format!("SERVER=sockmux:{parameter}"),
    };
    let what = format!("the device for {missing} is missing");
    Failure::at(word, &Problem::new(what, format!("add {add}")))
}

/// XON and XOFF are removed from the data: only the link layer of native peers escapes them.
fn xon_xoff(
    link: &LinkPlan,
    word: &Word,
    newest_protocol: u8,
    notices: &mut Vec<String>,
) -> Result<(), Failure> {
    match link {
        LinkPlan::Device(Device::Both { line, .. }) if line.flow == FlowControl::XonXoff => {}
        _ => return Ok(()),
    }
    if newest_protocol == 0 {
        let problem = Problem::new(
            "flow=xonxoff takes two of the 256 bytes for itself, and SockMux 0.3 uses all of them",
            "leave SOXCONF=protocol:0.3 out, or take flow=rtscts",
        );
        return Err(Failure::at(word, &problem));
    }
    notices.push(format!(
        "{word}: flow=xonxoff works where both ends are sockmux-uring; towards a SockMux 0.3 peer \
         take flow=rtscts"
    ));
    Ok(())
}
