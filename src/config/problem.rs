//! What is wrong in a file, and where: a path of keys, whose line is found when it is reported.

use super::document::KeyStep;

/// A rule that a value at `path` breaks.
#[derive(Debug)]
pub(super) struct Problem {
    /// Empty = the file as a whole.
    pub(super) path: Vec<KeyStep>,
    /// A sentence without a full stop, which names the key.
    pub(super) what: String,
}

pub(super) fn problem(path: Vec<KeyStep>, what: impl Into<String>) -> Problem {
    Problem { path, what: what.into() }
}

/// The path of a key of the file itself.
pub(super) fn key(name: &str) -> Vec<KeyStep> {
    vec![KeyStep::Key(name.to_owned())]
}

/// The path of key `name` in the table at `path`.
pub(super) fn below(path: &[KeyStep], name: &str) -> Vec<KeyStep> {
    let mut path = path.to_vec();
    path.push(KeyStep::Key(name.to_owned()));
    path
}
