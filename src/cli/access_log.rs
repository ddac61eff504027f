//! `--access-log FILE`: a line for each stream at its end.

use std::path::{Path, PathBuf};

use super::error::Problem;
use super::invocation::LogFormat;
use super::plan::LinkPlan;

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogPlan {
    /// Where it is written; `None`: to standard output.
    pub file: Option<PathBuf>,
    /// Form of its lines: that of the log.
    pub format: LogFormat,
}

impl AccessLogPlan {
    /// The file, or what stands for standard output.
    pub fn place(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(STANDARD_OUTPUT))
    }
}

const STANDARD_OUTPUT: &str = "-";

/// Reads the value, for a plan with this link.
///
/// # Errors
/// It is no place to write to.
pub(crate) fn parse(
    value: &str,
    format: LogFormat,
    link: &LinkPlan,
) -> Result<AccessLogPlan, Problem> {
    let problem =
        |what| Problem::new(what, "give the path of a file, as in --access-log access.log");
    match value {
        STANDARD_OUTPUT if *link == LinkPlan::Stdio => {
            Err(problem("--access-log -: standard output is the persistent connection (-Fsockmux)"))
        }
        STANDARD_OUTPUT => Ok(AccessLogPlan { file: None, format }),
        "" => Err(problem("--access-log: no file is named")),
        _ if value.contains('\0') => Err(problem("--access-log: there is a zero byte in the path")),
        _ => Ok(AccessLogPlan { file: Some(PathBuf::from(value)), format }),
    }
}
