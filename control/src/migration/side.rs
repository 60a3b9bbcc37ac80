//! A backend as the source or the target of a copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fluxgate_dataplane::influxql::print;
use fluxgate_dataplane::topology::Backend;

use crate::influx::answer::Answer;
use crate::influx::budget::Interrupted;
use crate::influx::client::{CallFailure, Client};
use crate::influx::reader::{Call, Unread};
use crate::limits;

/// Cheap to clone. Belongs to one copy: a cancel ends all calls of its sides for good.
#[derive(Debug, Clone)]
pub struct CopySide {
    pub name: String,
    pub client: Client,
    /// A backend that sends no byte of a slice for this long has failed; `limits::SILENCE_MAX`.
    pub silence_max: Duration,
}

/// A time range of one measurement in one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceWindow<'a> {
    pub db: &'a str,
    pub rp: &'a str,
    pub measurement: &'a str,
    pub begin_ns: i64,
    /// Exclusive.
    pub end_ns: i64,
}

impl SliceWindow<'_> {
    /// The part of a SELECT after its columns.
    fn clause(&self) -> String {
        let Self { begin_ns, end_ns, .. } = self;
        let (db, rp, measurement) = (print::name(self.db), print::name(self.rp), print::name(self.measurement));
        format!("FROM {db}.{rp}.{measurement} WHERE time >= {begin_ns} AND time < {end_ns}")
    }
}

impl CopySide {
    pub fn new(backend: &Backend, client: Client) -> Self {
        Self { name: backend.name.clone(), client, silence_max: limits::SILENCE_MAX }
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// [`CallFailure::Refused`] also for the statement's own error.
    pub fn statement(&self, db: &str, statement: &str) -> Result<Answer, CallFailure> {
        self.client.statement_in(db, statement, limits::MIGRATION_QUERY_TIMEOUT)
    }

    /// Number of values of each field in the window; fields without values are left out.
    pub fn counts(&self, window: &SliceWindow<'_>) -> Result<BTreeMap<String, u64>, CallFailure> {
        let answer = self.statement(window.db, &format!("SELECT count(*::field) {}", window.clause()))?;
        let mut counts = BTreeMap::new();
        for series in &answer.series {
            for (at, column) in series.columns.iter().enumerate() {
                let Some(field) = column.strip_prefix("count_") else { continue };
                let count: u64 = series.rows.iter().filter_map(|row| row.value(at)?.parse::<u64>().ok()).sum();
                if count > 0 {
                    *counts.entry(field.to_owned()).or_default() += count;
                }
            }
        }
        Ok(counts)
    }

    /// All points of the window, typed, by series, one document at a time.
    pub(super) fn documents(
        &self,
        window: &SliceWindow<'_>,
        piece_rows: usize,
        cancelled: &Arc<AtomicBool>,
        take: &mut dyn FnMut(Vec<u8>) -> Result<Result<(), String>, Interrupted>,
    ) -> Result<Result<(), Unread>, Interrupted> {
        let call = Call {
            statement: format!("SELECT *::field {} GROUP BY *", window.clause()),
            db: window.db.to_owned(),
            rp: String::new(),
            epoch: "ns".to_owned(),
            typed: true,
            by_get: false,
            piece_rows,
            piece_bytes_max: limits::MIGRATION_PIECE_BYTES_MAX,
            time_left: limits::SLICE_TIMEOUT,
            silence_max: Some(self.silence_max),
            cancelled: Arc::clone(cancelled),
        };
        self.client.documents(&call, take)
    }
}
