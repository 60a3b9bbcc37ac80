//! Routes two of glommio's calls through our own (`dataplane/src/io/uring/rings.rs`), for every binary and test of this
//! package.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for function in ["io_uring_queue_init_params", "io_uring_wait_cqes"] {
        println!("cargo:rustc-link-arg=-Wl,--wrap={function}");
    }
}
