//! What a pseudo terminal cannot show: it has no parity and takes every rate.

use rustix::pty::{OpenptFlags, openpt};

use super::*;

/// The settings of some terminal, as it is new.
fn fresh() -> Termios {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
    tcgetattr(&terminal).expect("its settings")
}

#[test]
fn a_character_is_as_the_options_say() {
    let characters = ControlModes::CSIZE
        | ControlModes::CSTOPB
        | ControlModes::PARENB
        | ControlModes::PARODD
        | ControlModes::CMSPAR;
    let cases = [
        (8, Parity::None, 1, ControlModes::CS8, 11_520),
        (8, Parity::Even, 1, ControlModes::CS8 | ControlModes::PARENB, 10_472),
        (
            7,
            Parity::Odd,
            2,
            ControlModes::CS7 | ControlModes::PARENB | ControlModes::PARODD | ControlModes::CSTOPB,
            10_472,
        ),
    ];
    for (data_bits, parity, stop_bits, modes, rate) in cases {
        let options = LineOptions { data_bits, parity, stop_bits, ..LineOptions::default() };
        let mut before = fresh();
        before.control_modes |= ControlModes::CMSPAR | ControlModes::PARODD;
        let asked = settings(&before, &options).expect("a rate");
        assert_eq!(asked.control_modes & characters, modes, "{options:?}");
        assert_eq!(asked.input_modes.contains(InputModes::INPCK), parity != Parity::None);
        assert_eq!(bytes_per_second(&options), rate, "{options:?}");
    }
}

#[test]
fn a_device_that_runs_at_another_rate_is_refused() {
    let options = LineOptions { baud: 921_600, ..LineOptions::default() };
    let asked = settings(&fresh(), &options).expect("a rate");
    let path = Path::new("/dev/ttyX");
    for (rate, refused) in [(921_600, false), (923_077, false), (960_000, true), (9600, true)] {
        let mut taken = asked.clone();
        taken.set_speed(rate).expect("a rate");
        let compared = compare(path, &options, &asked, &taken);
        assert_eq!(compared.is_err(), refused, "{rate}");
        if let Err(error) = compared {
            let message = error.to_string();
            let told = format!("baud=921600; it would run at {rate}");
            assert!(message.contains(&told) && message.contains("comm@/dev/ttyX"), "{message}");
        }
    }
}
