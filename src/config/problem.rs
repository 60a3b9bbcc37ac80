//! What is wrong in a file, and where: a path of keys, whose line is found when it is reported.

use super::document::Step;

/// A rule that a value at `path` breaks.
#[derive(Debug)]
pub(super) struct Problem {
    /// Empty = the file as a whole.
    pub(super) path: Vec<Step>,
    /// A sentence without a full stop, which names the key.
    pub(super) what: String,
}

pub(super) fn problem(path: Vec<Step>, what: impl Into<String>) -> Problem {
    Problem { path, what: what.into() }
}

/// The path of a key of the file itself.
pub(super) fn key(name: &str) -> Vec<Step> {
    vec![Step::Key(name.to_owned())]
}

/// The path of key `name` in the table at `path`.
pub(super) fn below(path: &[Step], name: &str) -> Vec<Step> {
    let mut path = path.to_vec();
    path.push(Step::Key(name.to_owned()));
    path
}
