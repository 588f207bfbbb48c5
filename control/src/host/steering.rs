//! Gives a TUN device a program that chooses the queue of each packet, as [`localvpc_api::steering`] describes it.
//!
//! It is a socket filter in eBPF, loaded once for each device and kept by it; nothing else ever runs it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Attaches the program to the device that a queue belongs to.
///
/// # Errors
///
/// Where the kernel has no eBPF or denies it: then it spreads packets its own way, which is right, but slower behind NAT gateways.
pub fn attach(queue: &OwnedFd) -> io::Result<()> {
    let program = load_program()?;
    let descriptor = program.as_raw_fd();
    // SAFETY: TUNSETSTEERINGEBPF reads one int, which outlives the call. The device keeps the program when the descriptor is closed.
    match unsafe { libc::ioctl(queue.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const descriptor) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this kernel takes the program.
///
/// # Errors
///
/// Why it does not.
pub fn probe() -> io::Result<()> {
    load_program().map(drop)
}

/// `_IOR('T', 224, int)`, from `linux/if_tun.h`.
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54e0_u32 as libc::Ioctl;

fn load_program() -> io::Result<OwnedFd> {
    let request = LoadRequest {
        program_type: SOCKET_FILTER,
        instruction_count: PROGRAM.len() as u32,
        instructions: PROGRAM.as_ptr() as u64,
        // Asked for by functions of the kernel that we do not call.
        license: c"Apache-2.0".as_ptr() as u64,
        others: [0; 3],
    };
    let size = size_of::<LoadRequest>();
    // SAFETY: BPF_PROG_LOAD reads `size` bytes of the request, and what its pointers lead to, all of which outlives the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const request, size) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// The beginning of `union bpf_attr`, as BPF_PROG_LOAD reads it; the kernel takes what is missing for 0.
#[repr(C)]
struct LoadRequest {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    /// Nothing to log, of any kernel version.
    others: [u64; 3],
}

/// `BPF_PROG_LOAD` and `BPF_PROG_TYPE_SOCKET_FILTER`, from `linux/bpf.h`.
const PROG_LOAD: libc::c_int = 5;
const SOCKET_FILTER: u32 = 1;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    operation: u8,
    /// The first operand, which takes the result, in the lower half; the second in the upper.
    registers: u8,
    /// Instructions that a jump leaves out.
    offset: i16,
    constant: i32,
}

/// The queue, before the kernel divides it by their number, of which it takes what 16 bits hold. Loads from beyond the packet end the program with queue 0.
const PROGRAM: [Instruction; 26] = [
    // Packets are loaded from what register 6 points to.
    registers(MOVE, 6, 1),
    load(BYTE, 0),
    registers(MOVE, HEADER, RESULT),
    constant(AND, HEADER, 0x0f),
    constant(SHIFT_LEFT, HEADER, 2),
    constant(SHIFT_RIGHT, RESULT, 4),
    jump(UNLESS_EQUAL, 4, 17), // to the end: not IPv4
    load(BYTE, 9),
    jump(IF_EQUAL, libc::IPPROTO_TCP, 1),
    jump(UNLESS_EQUAL, libc::IPPROTO_UDP, 9), // to the addresses
    load(HALF, 6),
    jump(IF_ANY_BIT, 0x3fff, 7), // to the addresses: a fragment
    load_after_header(HALF, 0),
    constant(SHIFT_RIGHT, RESULT, 1),
    registers(MOVE, FIRST, RESULT),
    load_after_header(HALF, 2),
    constant(SHIFT_RIGHT, RESULT, 1),
    registers(ADD, RESULT, FIRST),
    EXIT,
    // The addresses:
    load(HALF, 14),
    registers(MOVE, FIRST, RESULT),
    load(HALF, 18),
    registers(ADD, RESULT, FIRST),
    EXIT,
    // The end:
    constant(SET, RESULT, 0),
    EXIT,
];

/// What is loaded, and what is returned.
const RESULT: u8 = 0;
/// Length of the IPv4 header. Loads leave registers from 6 on alone.
const HEADER: u8 = 7;
/// What one end adds to the sum.
const FIRST: u8 = 8;

const EXIT: Instruction = Instruction { operation: 0x95, registers: 0, offset: 0, constant: 0 };

const fn registers(operation: u8, to: u8, from: u8) -> Instruction {
    Instruction { operation, registers: from << 4 | to, offset: 0, constant: 0 }
}

const MOVE: u8 = 0xbf;
const ADD: u8 = 0x0f;

const fn constant(operation: u8, register: u8, constant: i32) -> Instruction {
    Instruction { operation, registers: register, offset: 0, constant }
}

const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;

/// Compares what was loaded.
const fn jump(operation: u8, constant: i32, offset: i16) -> Instruction {
    Instruction { operation, registers: RESULT, offset, constant }
}

const IF_EQUAL: u8 = 0x15;
const UNLESS_EQUAL: u8 = 0x55;
const IF_ANY_BIT: u8 = 0x45;

/// From a place in the packet, in the order of this machine.
const fn load(size: u8, at: i32) -> Instruction {
    Instruction { operation: 0x20 | size, registers: 0, offset: 0, constant: at }
}

const fn load_after_header(size: u8, at: i32) -> Instruction {
    Instruction { operation: 0x40 | size, registers: HEADER << 4, offset: 0, constant: at }
}

const HALF: u8 = 0x08;
const BYTE: u8 = 0x10;
