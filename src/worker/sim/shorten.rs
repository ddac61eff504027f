//! Makes a script that fails shorter, as long as it fails.

use super::findings_of;
use super::script::Script;
use crate::io::sim::Conditions;

/// Most runs that are spent on it.
const RUNS_MAX: usize = 400;

/// The shortest script found that fails, and what it finds.
pub(super) fn shorten(script: &Script, found: &str) -> (Script, String) {
    let (mut shortest, mut found) = (script.clone(), found.to_owned());
    let mut runs = 0;
    'again: loop {
        for shorter in shorter_than(&shortest) {
            runs += 1;
            if runs > RUNS_MAX {
                break 'again;
            }
            if let Err(finding) = findings_of(&shorter)
                && kind(&finding) == kind(&found)
            {
                (shortest, found) = (shorter, finding);
                continue 'again;
            }
        }
        break;
    }
    (shortest, found)
}

/// What a finding is, without its figures.
fn kind(finding: &str) -> String {
    finding.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// Scripts with something left out.
fn shorter_than(script: &Script) -> Vec<Script> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Script)| {
        let mut shorter = script.clone();
        change(&mut shorter);
        out.push(shorter);
    };
    for at in 0..script.conversations.len() {
        with(&|script| {
            script.conversations.remove(at);
        });
    }
    if script.datagrams.is_some() {
        with(&|script| script.datagrams = None);
    }
    for at in 0..script.faults.len() {
        with(&|script| {
            script.faults.remove(at);
        });
    }
    let friendly: [fn(&mut Conditions); 7] = [
        |conditions| conditions.partial = 0,
        |conditions| conditions.again = 0,
        |conditions| conditions.no_buffer = 0,
        |conditions| conditions.delay = 0,
        |conditions| conditions.no_splice = 0,
        |conditions| conditions.noise = 0,
        |conditions| conditions.turn_frames = 0,
    ];
    for change in friendly {
        let mut conditions = script.conditions;
        change(&mut conditions);
        if conditions != script.conditions {
            with(&|script| script.conditions = conditions);
        }
    }
    for at in 0..script.conversations.len() {
        for way in 0..2 {
            if script.conversations[at].bytes[way] > 1 {
                with(&|script| script.conversations[at].bytes[way] /= 2);
            }
            if script.conversations[at].tempos[way].reads_after_micros > 0 {
                with(&|script| script.conversations[at].tempos[way].reads_after_micros = 0);
            }
        }
    }
    out
}
