//! The socket's path: who may be there, who may not, and what is left behind.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
};

use cxl_cram_device::vfio_user::{BindError, Server};

fn stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(path.exists());
}

#[test]
fn the_socket_is_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _server = Server::bind(&path).unwrap();
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    stale(&path);
    let server = Server::bind(&path).unwrap();
    assert_eq!(server.path(), path);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_living_server_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _server = Server::bind(&path).unwrap();
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    for _ in 0..50 {
        // More often than the backlog is long: a full backlog is a living server too.
        assert!(matches!(Server::bind(&path), Err(BindError::InUse { .. })));
    }
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode);
}

#[test]
fn a_living_socket_of_another_kind_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _datagram = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::InUse { .. })));
    assert!(path.exists());
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    let link = directory.path().join("link");
    stale(&directory.path().join("target"));
    symlink(directory.path().join("target"), &link).unwrap();
    for path in [&file, &link, directory.path()] {
        let error = Server::bind(path).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert!(link.is_symlink());
}

#[test]
fn a_path_that_cannot_be_bound_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Server::bind(directory.path().join("no/such")), Err(BindError::System { .. })));
    assert!(matches!(Server::bind(directory.path().join("x".repeat(200))), Err(BindError::BadPath { .. })));
    assert!(matches!(Server::bind(""), Err(BindError::BadPath { .. })));
    assert!(matches!(Server::bind("/dev/null/s"), Err(BindError::System { .. })));
}

#[test]
fn a_socket_that_took_our_place_is_not_unlinked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let server = Server::bind(&path).unwrap();
    fs::rename(&path, directory.path().join("moved")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}
