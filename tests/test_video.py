"""Which frames of a video are read, with which times, however it was recorded; and what damaged ones say."""

import cv2
import numpy as np
import pytest
from filming import SIZE, ffmpeg, grey, save_video

from engine.index.video import expected_frames, length_of, read_frame, read_frames
from utils.errors import UserError


def level(image: np.ndarray) -> int:
    return round(float(image.mean()) / 20)


def test_the_first_frame_of_each_period_is_read(tmp_path):
    video = save_video(tmp_path / "Straße 7.mp4", [n % 12 for n in range(35)], rate=10.0)
    for fps, numbers in ((1, [0, 10, 20, 30]), (2.5, [*range(0, 35, 4)]), (10, [*range(35)]), (99, [*range(35)])):
        frames = list(read_frames(video, fps))
        assert [frame.number for frame in frames] == numbers
        np.testing.assert_allclose([frame.position for frame in frames], np.array(numbers) / 10, atol=1e-3)
        assert [level(frame.image) for frame in frames] == [number % 12 for number in numbers]
        assert abs(expected_frames(video, fps) - len(numbers)) <= 1
    assert length_of(video) == pytest.approx(3.5)
    assert [frame.number for frame in read_frames(video, 2.5, first=13)] == [16, 20, 24, 28, 32]


def test_one_frame_is_found_again(tmp_path):
    video = save_video(tmp_path / "film.mp4", [n // 5 % 12 for n in range(100)])
    for frame in read_frames(video, 1.7):
        assert np.array_equal(read_frame(video, frame.number, frame.position), frame.image)
    assert read_frame(video, 1000, 100.0) is None


def test_times_are_right_where_frames_do_not_come_evenly(tmp_path):
    even, uneven = save_video(tmp_path / "even.mp4", [n % 12 for n in range(60)]), tmp_path / "uneven.mp4"
    ffmpeg("-i", even, "-vf", "select='lt(t,1)+not(mod(n,17))'", "-vsync", "vfr", uneven)
    frames = list(read_frames(uneven, 2))
    np.testing.assert_allclose([frame.position for frame in frames], [0, 0.5, 1.7, 3.4, 5.1], atol=2e-3)
    for frame in frames:
        assert abs(level(frame.image) - round(10 * frame.position) % 12) <= 0.5
        assert np.array_equal(read_frame(uneven, frame.number, frame.position), frame.image)


def test_videos_are_turned_upright(tmp_path):
    flat, turned = save_video(tmp_path / "flat.mp4", [5] * 10), tmp_path / "turned.mov"
    ffmpeg("-i", flat, "-metadata:s:v", "rotate=90", "-c", "copy", turned)
    [frame] = read_frames(turned, 1)
    if frame.image.shape[:2] == SIZE[::-1]:
        pytest.skip("this ffmpeg does not write the rotation")
    assert frame.image.shape[:2] == SIZE


def test_damaged_videos_are_told_from_each_other(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(UserError, match="text.mp4 cannot be read as a video"):
        list(read_frames(text, 1))
    with pytest.raises(UserError, match="text.mp4 cannot be read as a video"):
        length_of(text)
    assert expected_frames(text, 1) == 0
    empty = save_video(tmp_path / "empty.avi", [])
    with pytest.raises(UserError, match=r"empty.avi (is a video without frames|cannot be read as a video)"):
        list(read_frames(empty, 1))


def test_what_comes_before_the_damage_is_read(tmp_path):
    rng = np.random.default_rng(0)
    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, SIZE)
    for _ in range(50):
        writer.write(np.clip(grey(5) + rng.integers(0, 60, (SIZE[1], SIZE[0], 3)), 0, 255).astype(np.uint8))
    writer.release()
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    frames = []
    with pytest.raises(UserError, match=r"cut.avi is damaged: it ends after \d\.\d of 5\.0 seconds"):
        for frame in read_frames(cut, 5):
            frames.append(frame)
    assert 10 <= len(frames) <= 14
