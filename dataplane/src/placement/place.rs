//! The key that decides where a point belongs: owners, readers and shares are looked up with it.

/// A database and one of its measurements, unescaped. Borrowed as `Place<&[u8]>` or `Place<&str>`; plain `Place` owns
/// its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place<T = String> {
    pub db: T,
    pub measurement: T,
}

impl<T> Place<T> {
    pub fn new(db: T, measurement: T) -> Self {
        Self { db, measurement }
    }
}

impl<T: AsRef<[u8]>> Place<T> {
    /// As the functions of the placement take it.
    pub fn bytes(&self) -> Place<&[u8]> {
        Place { db: self.db.as_ref(), measurement: self.measurement.as_ref() }
    }
}

impl<T: AsRef<str>> Place<T> {
    pub fn as_str(&self) -> Place<&str> {
        Place { db: self.db.as_ref(), measurement: self.measurement.as_ref() }
    }

    /// A copy that owns its names.
    pub fn owned(&self) -> Place {
        Place { db: self.db.as_ref().to_owned(), measurement: self.measurement.as_ref().to_owned() }
    }
}
