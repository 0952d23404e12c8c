//! The client of the `vfio_user` crate, written by others, as a second opinion on the protocol.

use std::os::fd::AsRawFd;

use vfio_user::Client;

use super::peer::*;

#[test]
fn the_client_of_the_vfio_user_crate_works_with_this_server() {
    let rig = Rig::start();
    let mut client = Client::new(rig.path()).unwrap();

    let bar2 = client.region(BAR2).unwrap();
    assert_eq!(bar2.size, BAR2_LEN);
    assert_eq!(bar2.sparse_areas.iter().map(|area| (area.offset, area.size)).collect::<Vec<_>>(), [(0, BAR2_MMAP_LEN)]);
    assert_eq!(bar2.file_offset.as_ref().unwrap().start(), 0);
    assert!(client.region(BAR0).unwrap().file_offset.is_none());
    assert_eq!(client.region(ROM).unwrap().size, 0);

    let file = tempfile::tempfile().unwrap();
    client.dma_map(0, 0, 0x1000, file.as_raw_fd()).unwrap();
    client.dma_unmap(0, 0x1000).unwrap();

    client.region_write(BAR0, 0xa00, &[1, 2, 3, 4]).unwrap();
    let mut data = [0; 4];
    client.region_read(BAR0, 0xa00, &mut data).unwrap();
    assert_eq!(data, [1, 2, 3, 4]);

    assert_eq!(client.get_irq_info(MSIX).unwrap().count, VECTORS);
    let eventfd = new_eventfd();
    client.set_irqs(MSIX, 4 | 32, 6, 1, &[eventfd.as_raw_fd()]).unwrap();
    assert!(rig.interrupts.raise(MSIX, 6));
    assert_eq!(edges(&eventfd), 1);

    client.reset().unwrap();
    rig.device.wait_for(&Call::Reset, 1);
    drop(client);
    rig.device.wait_for(&Call::Gone, 1);
    rig.client().expect_working();
}
