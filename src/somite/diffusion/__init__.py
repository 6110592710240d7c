"""The core: schedules, codecs, loss terms, samplers and the two methods. It knows no network, file or task."""
