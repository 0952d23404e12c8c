//! A guest that writes anything anywhere: the device answers on.

use proptest::prelude::*;

use super::{
    driver::{CAPACITY, DEVICE_REGISTERS, Device, PRIMARY_MAILBOX, u64_at, wait_until},
    logs::effects,
};

#[derive(Clone, Debug)]
enum Access {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    /// An opcode, mostly a real one, with a payload of any length.
    Command(u16, Vec<u8>),
    Reset,
}

fn access(opcodes: Vec<u16>) -> impl Strategy<Value = Access> {
    // Around the capabilities most of the time, over the end of the block some of the time.
    let offset = || prop_oneof![8 => 0..0xb00_u64, 1 => 0..0x10008_u64];
    let bytes = |length| prop::collection::vec(prop_oneof![3 => Just(0), 2 => 0..8_u8, 1 => any::<u8>()], length);
    let opcode = prop_oneof![4 => prop::sample::select(opcodes), 1 => any::<u16>()];
    prop_oneof![
        4 => (offset(), 0..64_usize).prop_map(|(at, length)| Access::Read(at, length)),
        4 => (offset(), bytes(0..64)).prop_map(|(at, data)| Access::Write(at, data)),
        8 => (opcode, bytes(0..80)).prop_map(|(opcode, payload)| Access::Command(opcode, payload)),
        1 => Just(Access::Reset),
    ]
}

fn any_accesses() -> impl Strategy<Value = Vec<Access>> {
    let opcodes = effects(&Device::new()).into_keys().collect();
    prop::collection::vec(access(opcodes), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_the_mailbox_still_answers(accesses in any_accesses()) {
        let device = Device::new();
        let capabilities = device.capabilities();
        for access in accesses {
            match access {
                Access::Read(at, length) => {
                    device.type3.bar0_read(DEVICE_REGISTERS + at, &mut vec![0; length]);
                }
                Access::Write(at, data) => device.type3.bar0_write(DEVICE_REGISTERS + at, &data),
                Access::Command(opcode, payload) => {
                    device.run(opcode, &payload);
                }
                Access::Reset => device.type3.reset(),
            }
            wait_until(|| !device.background_runs());
        }
        prop_assert_eq!(device.capabilities(), capabilities);
        prop_assert_eq!(u64_at(&device.output(0x4000, &[]), 0x10), CAPACITY >> 28);
        device.type3.reset();
        prop_assert_eq!(device.read64(device.capability(PRIMARY_MAILBOX) + 8), 0);
    }
}
