//! What backends have said about the types of mathematical functions. Not here: how they are asked (`functions`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use fluxgate_dataplane::topology::BackendId;

use super::types::Type;
use crate::limits;

/// What backends have said, for all requests.
#[derive(Debug, Default)]
pub struct FunctionTypes(Mutex<Known>);

#[derive(Debug)]
struct Known {
    since: Instant,
    /// By backend and call.
    types: HashMap<(BackendId, String), Type>,
}

impl Default for Known {
    fn default() -> Self {
        Self { since: Instant::now(), types: HashMap::new() }
    }
}

impl FunctionTypes {
    /// None: not known yet.
    pub fn get(&self, key: &(BackendId, String)) -> Option<Type> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).types.get(key).copied()
    }

    pub fn put(&self, key: (BackendId, String), of: Type) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A backend may have been replaced by another version.
        if known.since.elapsed() > limits::FUNCTION_TYPES_AGE || known.types.len() >= limits::FUNCTION_TYPES_MAX {
            *known = Known::default();
        }
        known.types.insert(key, of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let types = FunctionTypes::default();
        for n in 0..=limits::FUNCTION_TYPES_MAX {
            types.put((BackendId(0), n.to_string()), None);
        }
        assert_eq!(types.0.lock().unwrap().types.len(), 1);
        assert_eq!(types.get(&(BackendId(0), limits::FUNCTION_TYPES_MAX.to_string())), Some(None));
        assert_eq!(types.get(&(BackendId(1), limits::FUNCTION_TYPES_MAX.to_string())), None);
    }
}
