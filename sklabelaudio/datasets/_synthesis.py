"""The sounds of `make_sound_events`: one function a class, numpy alone.

Each function takes a `Synth`, draws its own pitch, rate and onset from it, and
returns a waveform of any level. Frequencies and rates are in Hz, times in seconds.
No tone goes above 6 kHz, so that none is aliased from 16 kHz on.
"""

import numpy as np


class Synth:
    """Generator, time line and building blocks of one clip.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all that varies.
    n_samples : int
        Length of the clip.
    sampling_rate : int
        Rate in Hz.
    """

    def __init__(self, rng, n_samples, sampling_rate):
        self.uniform = rng.uniform
        self.rng = rng
        self.sampling_rate = sampling_rate
        self.time = np.arange(n_samples) / sampling_rate
        self.duration = n_samples / sampling_rate

    def noise(self, low, high):
        """Gaussian noise of unit power between two frequencies, with soft edges."""
        # A power of two keeps the transform quick whatever the length of the clip.
        n_fft = 1 << (self.time.size - 1).bit_length()
        squared = np.fft.rfftfreq(n_fft, 1 / self.sampling_rate).astype(np.float32) ** 2
        gain = squared / ((squared + low**2) * (1 + (squared / high**2) ** 2))
        # Random phases alone sum to Gaussian noise too, for a third of the time.
        phase = np.float32(2 * np.pi) * self.rng.random(gain.size, dtype=np.float32)
        spectrum = np.empty(gain.size, dtype=np.complex64)
        np.multiply(gain, np.cos(phase), out=spectrum.real)
        np.multiply(gain, np.sin(phase), out=spectrum.imag)
        samples = np.fft.irfft(spectrum, n_fft)[: self.time.size].astype(np.float32)
        return samples / np.sqrt(np.mean(samples * samples))

    def phase(self, frequency):
        """Phase in radians of a tone of a constant or gliding frequency."""
        turns = np.cumsum(np.broadcast_to(frequency, self.time.shape))
        turns /= self.sampling_rate
        turns -= np.floor(turns)
        return np.float32(2 * np.pi) * turns.astype(np.float32)

    def tone(self, frequency, gains=(1,)):
        """Sum of harmonics; the first gain is the fundamental's."""
        phase = self.phase(frequency)
        double_cosine = 2 * np.cos(phase)
        previous, current = 0, np.sin(phase)
        total = gains[0] * current
        for gain in gains[1:]:
            # sin(kx) = 2 cos(x) sin((k-1)x) - sin((k-2)x) needs no further sine.
            previous, current = current, double_cosine * current - previous
            total += gain * current
        return total

    def pulses(self, rate, sharpness):
        """Smooth pulses between 0 and 1 at a rate."""
        return np.exp(sharpness * (np.cos(self.phase(rate)) - 1))

    def drift(self, rate, low, high):
        """Random curve between two values that turns about `rate` times a second."""
        knots = self.uniform(low, high, int(rate * self.duration) + 3)
        position = self.time * rate + self.uniform()
        return np.interp(position, np.arange(knots.size), knots)

    def regular(self, rate, jitter=0.02):
        """Times of events at a rate, the first one early in the clip."""
        steps = self.uniform(0.05, 0.4) + np.arange(int(rate * self.duration) + 2)
        steps += jitter * self.rng.standard_normal(steps.size)
        return np.sort(steps.clip(0)) / rate

    def scattered(self, rate):
        """Times of events that come at random."""
        return np.sort(self.uniform(0, self.duration, int(rate * self.duration) + 1))

    def since(self, events):
        """Seconds since the last event, infinite before the first, and its index."""
        first = np.ceil(events * self.sampling_rate).astype(int)
        bounds = first.clip(0, self.time.size)
        counts = np.diff(bounds, prepend=0, append=self.time.size)
        index = np.repeat(np.arange(-1, events.size), counts)
        elapsed = np.where(index < 0, np.inf, self.time - events[index])
        return elapsed.astype(np.float32), index

    def strikes(self, events, decay, spread=0.3):
        """Envelope of strikes that fade with a time constant, each of its own force."""
        elapsed, index = self.since(events)
        force = self.uniform(1 - spread, 1, events.size + 1).astype(np.float32)
        # A rise of a millisecond keeps the attack free of clicks of its own.
        return force[index] * np.exp(-elapsed / decay) * np.minimum(elapsed * 1000, 1)

    def bursts(self, events, length):
        """Envelope of bursts with round edges, and the progress in each, 0 to 1."""
        progress = np.minimum(self.since(events)[0] / length, 1)
        return np.minimum(3 * np.sin(np.pi * progress), 1).clip(0), progress


def siren(synth):
    turn = 2 * np.pi * (synth.uniform(0.5, 1.2) * synth.time + synth.uniform())
    sweep = 1 + synth.uniform(0.3, 0.45) * np.sin(turn)
    return synth.tone(synth.uniform(750, 1000) * sweep, (1, 0.5, 0.4, 0.2))


def alarm_beep(synth):
    rate = synth.uniform(2.5, 5)
    gate, _ = synth.bursts(synth.regular(rate, jitter=0), 0.5 / rate)
    return gate * synth.tone(synth.uniform(1200, 1800), (1, 0.3, 0.4))


def bell(synth):
    events = np.array([synth.uniform(0.02, 0.15), synth.uniform(0.8, 1.2)])
    elapsed, _ = synth.since(events[: synth.rng.integers(1, 3)])
    pitch, decay = synth.uniform(450, 800), synth.uniform(0.5, 0.9)
    # Hum note, prime, tierce, quint, nominal and two above; the higher fade sooner.
    partials = zip(
        (0.5, 1, 1.19, 1.5, 2, 2.67, 4.1),
        (0.5, 1, 0.7, 0.4, 0.8, 0.4, 0.3),
        strict=True,
    )
    return sum(
        gain * np.exp(-elapsed * (ratio**0.5 / decay)) * synth.tone(pitch * ratio)
        for ratio, gain in partials
    )


def dog_bark(synth):
    events = synth.regular(synth.uniform(1.6, 3), jitter=0.08)
    gate, progress = synth.bursts(events, synth.uniform(0.14, 0.22))
    pitch = synth.uniform(350, 600) * (1.15 - 0.5 * progress)
    voice = synth.tone(pitch, (0.6, 1, 0.8, 0.5, 0.3, 0.2))
    return gate * (voice + 0.35 * synth.noise(400, 2500))


def bird_chirp(synth):
    rate = synth.uniform(3.5, 7)
    events = synth.regular(rate, jitter=0.1)
    gate, progress = synth.bursts(events, synth.uniform(0.5, 0.7) / rate)
    return gate * synth.tone(
        synth.uniform(2400, 3400) + synth.uniform(1200, 2400) * progress
    )


def crickets(synth):
    insects = sum(
        synth.uniform(0.3, 1)
        * synth.pulses(synth.uniform(20, 40), 1)
        * synth.tone(synth.uniform(3800, 6000))
        for _ in range(3)
    )
    return insects + 0.02 * synth.noise(2000, 6000)


def rain(synth):
    drops = synth.strikes(synth.scattered(synth.uniform(60, 150)), 0.003, spread=0.9)
    return (1 + 1.5 * drops) * synth.noise(synth.uniform(700, 1500), 7000)


def wind(synth):
    gusts = synth.drift(1.5, 0.2, 1) ** 2
    howl = synth.noise(120, synth.uniform(300, 600))
    return gusts * (howl + 0.05 * synth.noise(800, 3000))


def thunder(synth):
    events = np.append(synth.uniform(0, 0.2), np.sort(synth.uniform(0.2, 1.2, 3)))
    roll = synth.strikes(events, synth.uniform(0.25, 0.45), spread=0.8)
    crack = synth.strikes(events[:1], 0.06)
    rumble = synth.noise(40, synth.uniform(110, 200))
    return roll * rumble + 0.25 * crack * synth.noise(200, 3000)


def sea_waves(synth):
    turn = np.pi * (synth.uniform(0.35, 0.6) * synth.time + synth.uniform())
    swell = np.square(np.sin(turn.astype(np.float32))) ** 2
    return (0.12 + swell) * synth.noise(250, synth.uniform(1500, 2800))


def footsteps(synth):
    events = synth.regular(synth.uniform(1.6, 2.6), jitter=0.03)
    thump = synth.strikes(events, synth.uniform(0.025, 0.04))
    scuff = synth.strikes(events + 0.03, 0.02)
    heel = synth.noise(80, synth.uniform(250, 400))
    return thump * heel + 0.12 * scuff * synth.noise(1200, 4000)


def applause(synth):
    claps = synth.strikes(synth.scattered(synth.uniform(25, 45)), 0.012, spread=0.7)
    return (0.15 + claps) * synth.noise(900, synth.uniform(2200, 3200))


def whistle(synth):
    vibrato = 1 + 0.012 * np.sin(synth.phase(synth.uniform(4, 6)))
    pitch = synth.uniform(900, 1600) * synth.drift(1.5, 0.8, 1.2) * vibrato
    return synth.tone(pitch, (1, 0.2, 0.1)) + 0.05 * synth.noise(800, 4000)


def engine(synth):
    firing = synth.pulses(synth.uniform(35, 60) * synth.drift(1, 0.93, 1.07), 25)
    return 4 * (firing - firing.mean()) + 0.25 * synth.noise(60, 900)


def helicopter(synth):
    chop = 0.1 + synth.pulses(synth.uniform(9, 15), 3)
    blades = synth.noise(100, synth.uniform(500, 900))
    return chop * blades + 0.08 * synth.noise(1200, 5000)


def clock_tick(synth):
    events = synth.regular(synth.uniform(2, 4), jitter=0)
    tick = synth.strikes(events, 0.006, spread=0.15)
    return tick * synth.noise(2500, synth.uniform(4500, 6500))
