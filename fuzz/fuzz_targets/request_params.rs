#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leyden_fuzz_logic::request_params(data));
