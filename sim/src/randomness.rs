//! The operating system's randomness, as libc gives it to the standard library: hash maps of the program would else be
//! walked in another order in each run. A run has a thread of its own, whose first hash map asks once.

use std::ffi::{c_uint, c_void};

/// Takes the place of libc's function of this name in binaries that simulate. Nothing here keeps a secret.
///
/// # Safety
/// As getrandom(2): `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller has room for `len` bytes there.
    unsafe { std::ptr::write_bytes(buffer.cast::<u8>(), 0x5a, len) };
    len as isize
}
