//! Replies of the server: the command that each is for, and its form for the client.

use super::reply::{self, Part};
use super::{Due, Ftp, tell_server, user};
use crate::proxy_proto::{ProxyStep, say};

impl Ftp {
    pub(super) fn server_line(&mut self, line: &[u8], steps: &mut Vec<ProxyStep>) {
        self.own_answers = 0;
        if line.contains(&0) {
            return self.give_up("The server does not speak FTP", steps);
        }
        let part = self.replies.read(line);
        let passes = match self.pending.front() {
            Some(Due::Greeting(Some(_))) => false,
            // Only the last line has the result.
            Some(Due::Passive { .. }) => match part {
                Part::First(code) | Part::Within(code) => reply::is_of_a_transfer(code),
                Part::Stray => true,
                Part::Last(_) => false,
            },
            Some(Due::Features) => {
                !matches!(part, Part::Within(_)) || !reply::is_feature_kept_back(line)
            }
            _ => true,
        };
        if passes {
            say(line, steps);
        }
        // Lower codes announce that the final reply follows.
        if let Part::Last(code @ 200..) = part {
            self.reply_ends(code, line, steps);
        }
    }

    /// The server has replied, with this as the last line.
    fn reply_ends(&mut self, code: u16, line: &[u8], steps: &mut Vec<ProxyStep>) {
        match self.pending.pop_front() {
            Some(Due::Greeting(Some(name))) if code < 300 => {
                self.pending.push_front(Due::Reply);
                tell_server(&user(&name), steps);
            }
            Some(Due::Greeting(Some(_))) => {
                let said = String::from_utf8_lossy(reply::text(line));
                let why = format!("The server serves nobody now: {}", said.escape_debug());
                return self.give_up(&why, steps);
            }
            Some(Due::Passive { asked, sent }) => {
                self.passive_reply(code, line, (asked, sent), steps);
            }
            Some(due @ Due::Active(_)) if reply::is_of_a_transfer(code) => {
                self.pending.push_front(due);
            }
            Some(Due::Active(request)) if code >= 400 => self.ports.give_up(request, steps),
            _ => {}
        }
        if code == 421 {
            self.end(steps);
        }
    }
}
