//! Routes glommio's ring creation through our shim (`dataplane/src/io/coop.rs`), for every binary and test of this package.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,--wrap=io_uring_queue_init_params");
}
