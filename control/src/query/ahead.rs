//! Statements that only read are tried before their turn, all up to the first that changes something, so that what they
//! ask reaches each backend in few requests.
//!
//! ```text
//!   try each statement ──> its questions are noted ──> noted ones asked, many in one request ──┐
//!          ^                                                                                   │
//!          └────────────────── until no try needs an answer that is not there ─────────────────┘
//! ```
//!
//! A try runs the statement as usual, with the answers that are there ([`AskedAhead`]). Reading changes nothing, so it
//! may be done early. A statement that fails in a try, or whose questions get no answer, is run again when its turn
//! comes, with all that belongs to it: other backends, and the errors of statements.

use std::collections::BTreeMap;

use fluxgate_dataplane::influxql::ast::Statement;
use fluxgate_dataplane::routing::reach::{Class, Reach, class};
use fluxgate_dataplane::topology::BackendId;

use super::context::{Context, Stop, Times};
use super::statement;
use crate::influx::answer::Answer;
use crate::limits;

/// One statement for one backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    pub backend: BackendId,
    pub times: Times,
    pub text: String,
}

/// What tries have asked.
#[derive(Debug, Default)]
pub struct AskedAhead {
    /// None: no answer can be had here.
    answers: BTreeMap<Question, Option<Answer>>,
    /// To be asked next, in the order of the tries, and the bytes of their texts.
    noted: Vec<Question>,
    noted_bytes: usize,
}

impl AskedAhead {
    /// Copies of the answers; None when some are not there. These are noted then.
    pub fn answers(&mut self, questions: Vec<Question>) -> Option<Vec<Answer>> {
        let known: Option<Vec<_>> = questions.iter().map(|question| self.answers.get(question)?.clone()).collect();
        if known.is_none() {
            for question in questions {
                let fits = self.noted_bytes + question.text.len() <= limits::AHEAD_TEXT_BYTES_MAX;
                if fits && !self.answers.contains_key(&question) {
                    self.noted_bytes += question.text.len();
                    self.answers.insert(question.clone(), None);
                    self.noted.push(question);
                }
            }
        }
        known
    }

    pub fn take_noted(&mut self) -> Vec<Question> {
        self.noted_bytes = 0;
        std::mem::take(&mut self.noted)
    }

    pub fn learn(&mut self, answers: impl IntoIterator<Item = (Question, Answer)>) {
        self.answers.extend(answers.into_iter().map(|(question, answer)| (question, Some(answer))));
    }

    /// The memory of all answers, without the texts of their rows, which copies share.
    fn bytes(&self) -> usize {
        self.answers.values().flatten().map(|answer| answer.memory_bytes(false)).sum()
    }
}

/// How a try has ended.
enum Tried {
    Answered(Answer),
    /// It needs answers that are not there.
    Open,
    /// It is run again at its turn. Those after it are not tried: they may never run.
    Failed,
}

/// Answers of the statements at the front, at least of one. None: run it as usual.
///
/// # Errors
/// What ends the whole request.
pub fn read(context: &Context<'_>, statements: &[Statement]) -> Result<Vec<Option<Answer>>, Stop> {
    let reach = |statement| match class(statement, &context.request.db) {
        Class::Read(reach) => Some((statement, reach)),
        _ => None,
    };
    let reads: Vec<_> = statements.iter().take(limits::AHEAD_STATEMENTS_MAX).map_while(reach).collect();
    let mut answers = vec![None; reads.len().max(1)];
    if reads.len() > 1 {
        context.begin_statement();
        context.begin_tries();
        let tried = tries(context, &reads, &mut answers);
        let asked = context.end_tries();
        context.held.give_back(asked.bytes());
        tried?;
    }
    Ok(answers)
}

fn tries(context: &Context<'_>, reads: &[(&Statement, Reach)], answers: &mut Vec<Option<Answer>>) -> Result<(), Stop> {
    let mut open: Vec<usize> = (0..reads.len()).collect();
    for _ in 0..limits::AHEAD_ROUNDS_MAX {
        let mut still_open = Vec::new();
        for at in open {
            let (statement, reach) = &reads[at];
            match attempt(context, statement, reach)? {
                Tried::Answered(answer) => answers[at] = Some(answer),
                Tried::Open => still_open.push(at),
                Tried::Failed => {
                    answers.truncate(at + 1);
                    break;
                }
            }
        }
        open = still_open;
        let noted = context.take_noted();
        if noted.is_empty() {
            break;
        }
        ask(context, noted)?;
    }
    Ok(())
}

fn attempt(context: &Context<'_>, statement: &Statement, reach: &Reach) -> Result<Tried, Stop> {
    let before = context.held.bytes();
    let tried = match statement::read(context, statement, reach) {
        Ok(answer) if answer.error.is_none() => return Ok(Tried::Answered(answer)),
        Err(Stop::Cancelled) => return Err(Stop::Cancelled),
        Err(Stop::Later) => Tried::Open,
        Ok(_) | Err(Stop::Failed { .. }) => Tried::Failed,
    };
    // The copies of answers that it had.
    context.held.give_back(context.held.bytes() - before);
    Ok(tried)
}

/// Asks all questions: those for one backend in requests of many, side by side. An error ends such a request, so what
/// it is about is then asked alone, and what follows in another request.
fn ask(context: &Context<'_>, noted: Vec<Question>) -> Result<(), Stop> {
    let mut groups: BTreeMap<(BackendId, Times), Vec<Question>> = BTreeMap::new();
    for question in noted {
        groups.entry((question.backend, question.times)).or_default().push(question);
    }
    let mut open: Vec<Vec<Question>> = groups
        .into_values()
        .flat_map(|group| group.chunks(limits::STATEMENTS_MAX).map(<[_]>::to_vec).collect::<Vec<_>>())
        .collect();
    let mut alone = Vec::new();
    for _ in 0..limits::AHEAD_ATTEMPTS {
        let (single, several): (Vec<_>, Vec<_>) = open.into_iter().partition(|group| group.len() == 1);
        alone.extend(single.into_iter().flatten());
        open = Vec::new();
        for (group, answers) in several.iter().zip(context.ask_together(&several)?) {
            let good = answers.iter().take_while(|answer| answer.error.is_none()).count();
            let failed = (good < answers.len()).then_some(good);
            context.learn(group.iter().cloned().zip(answers.into_iter().take(good)));
            if let Some((failed, rest)) = failed.and_then(|at| group.get(at..)?.split_first()) {
                alone.push(failed.clone());
                open.extend((!rest.is_empty()).then(|| rest.to_vec()));
            }
        }
        if open.is_empty() {
            break;
        }
    }
    alone.truncate(limits::AHEAD_ALONE_MAX);
    let answers = context.ask_noted(&alone)?;
    context.learn(alone.into_iter().zip(answers).filter_map(|(question, answer)| Some((question, answer?))));
    Ok(())
}
