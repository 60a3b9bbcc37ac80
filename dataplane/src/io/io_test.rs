//! What this crate relies on in the runtime.

use std::net::Shutdown;
use std::time::Duration;

use super::*;
use crate::tls::{ServerTls, Trust};
use crate::topology::BackendId;

#[test]
fn the_main_ring_is_created_with_the_coop_flag() {
    block_on(|| async {});
    assert!(rings::coop_applied());
}

#[test]
fn bytes_go_both_ways_and_a_closed_listener_ends_its_accept() {
    block_on(|| async {
        let (_guard, mut sockets) = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let listener = std::rc::Rc::new(Listener::new(sockets.pop().unwrap()).unwrap());
        let addr = listener.local_addr().unwrap();
        let accepting = listener.clone();
        let server = glommio::spawn_local(async move {
            let mut stream = accepting.accept().await.unwrap();
            let mut buf = [0; 16];
            let n = stream.read(&mut buf).await.unwrap();
            stream.write_all(&buf[..n]).await.unwrap();
            accepting.accept().await.map(|_| ())
        });
        let mut client = Stream::connect(addr, Duration::from_secs(5)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut buf = [0; 16];
        assert_eq!(client.read(&mut buf).await.unwrap(), 5);
        client.shutdown(Shutdown::Both).await.unwrap();
        listener.close();
        assert!(server.await.is_err(), "a pending accept ends with an error");
    });
}

#[test]
fn a_signal_from_another_thread_wakes_the_executor() {
    block_on(|| async {
        let bell = std::sync::Arc::new(Bell::new().unwrap());
        let ringing = bell.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            ringing.ring();
        });
        timeout(Duration::from_secs(5), bell.signal().unwrap().wait()).await.unwrap().unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn a_timeout_drops_a_task_that_takes_too_long() {
    block_on(|| async {
        assert_eq!(timeout(Duration::from_millis(20), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout(Duration::from_secs(5), async { 7 }).await, Ok(7));
    });
}

/// Both ends of a TLS connection over loopback, with a self-signed certificate.
async fn tls_pair() -> (Stream, Stream) {
    use rcgen::KeyPair;
    use rustls::crypto::ring;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::sign::CertifiedKey;

    let key = KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = ring::default_provider();
    let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, &provider).unwrap();
    let tls = ServerTls::new(certified, ring::ALL_CIPHER_SUITES.to_vec(), rustls::ALL_VERSIONS).unwrap();

    let (_guard, mut sockets) = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let listener = Listener::new(sockets.pop().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = glommio::spawn_local(async move {
        let mut server = listener.accept().await.unwrap();
        server.accept_tls(&tls).unwrap();
        server.handshake().await.unwrap();
        server
    });
    let unverified = Trust::new(Vec::new(), vec![BackendId(0)]).unwrap().client_config(BackendId(0));
    let name = ServerName::try_from("localhost").unwrap();
    let client = Stream::connect_tls(addr, Duration::from_secs(5), unverified, name).await.unwrap();
    (client, server.await)
}

/// Byte `i` of the test data below.
fn byte(i: usize) -> u8 {
    (i * 31 + i / 251) as u8
}

/// A relative path must not be resolved relative to some descriptor, which the runtime's own calls do.
#[test]
fn files_and_folders_are_found_by_relative_paths() {
    block_on(|| async {
        let dir = tempfile::tempdir().unwrap();
        let up = std::env::current_dir().unwrap().components().count() - 1;
        let root: std::path::PathBuf = std::iter::repeat_n("..", up).collect();
        let relative = root.join(dir.path().strip_prefix("/").unwrap()).join("folder");
        sync_folder(&relative).await.unwrap();
        sync_folder(&relative).await.unwrap();
        let mut file = AppendFile::create(&relative.join("file")).await.unwrap();
        file.append(b"here").await.unwrap();
        file.sync().await.unwrap();
        file.close().await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("folder/file")).unwrap(), b"here");
        remove(&relative.join("file")).await.unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("folder")).unwrap().count(), 0);
    });
}

#[test]
fn a_read_of_tls_that_is_dropped_loses_nothing() {
    block_on(|| async {
        const LEN: usize = 400_000;
        let (mut client, mut server) = tls_pair().await;
        spawn(async move {
            let bytes: Vec<_> = (0..LEN).map(byte).collect();
            for (i, piece) in bytes.chunks(1777).enumerate() {
                client.write_all(piece).await.unwrap();
                if i % 5 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            client.shutdown(Shutdown::Both).await.unwrap();
        });
        let (mut got, mut dropped) = (0, 0);
        let mut buf = vec![0; 3000];
        loop {
            // Each read is polled once and dropped unless it has bytes.
            let room = 1 + got % buf.len();
            match futures_lite::future::poll_once(server.read(&mut buf[..room])).await {
                Some(read) => {
                    let n = read.unwrap();
                    if n == 0 {
                        break;
                    }
                    assert!((0..n).all(|i| buf[i] == byte(got + i)));
                    got += n;
                }
                None => {
                    dropped += 1;
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        assert!(got == LEN && dropped > 5, "{got} bytes, {dropped} reads dropped");
    });
}

#[test]
fn both_ends_of_tls_can_send_at_length_before_either_reads() {
    block_on(|| async {
        // Both fit into the sockets' buffers; the data read comes from records that a write found waiting.
        const LEN: usize = 150_000;
        let (mut client, mut server) = tls_pair().await;
        let bytes: Vec<_> = (0..LEN).map(byte).collect();
        client.write_all(&bytes).await.unwrap();
        server.write_all(&bytes).await.unwrap();
        client.write_all(&bytes).await.unwrap();
        for (end, len) in [(&mut client, LEN), (&mut server, 2 * LEN)] {
            let (mut got, mut buf) = (0, vec![0; 40_000]);
            while got < len {
                let n = end.read(&mut buf).await.unwrap();
                assert!(n > 0 && (0..n).all(|i| buf[i] == byte((got + i) % LEN)));
                got += n;
            }
        }
    });
}

#[test]
fn a_cut_answer_is_not_taken_for_a_complete_one() {
    block_on(|| async {
        let (mut client, mut server) = tls_pair().await;
        server.write_all(b"begun").await.unwrap();
        drop(server);
        let mut buf = [0; 16];
        assert_eq!(client.read(&mut buf).await.unwrap(), 5);
        assert_eq!(client.read(&mut buf).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);

        let (mut client, mut server) = tls_pair().await;
        server.shutdown(Shutdown::Write).await.unwrap();
        assert_eq!(client.read(&mut buf).await.unwrap(), 0);
    });
}
