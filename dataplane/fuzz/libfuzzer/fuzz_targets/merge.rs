#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| localvpc_fuzz::merge(bytes));
