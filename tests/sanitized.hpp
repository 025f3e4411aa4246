// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether a test is compiled with a sanitizer.
#pragma once

/// Whether an address or thread sanitizer is in this program: memory is kept in other ways then,
/// and code takes many times as long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool is_sanitized = true;
#elif defined(__has_feature)
inline constexpr bool is_sanitized =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool is_sanitized = false;
#endif
