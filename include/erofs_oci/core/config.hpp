// SPDX-License-Identifier: Apache-2.0
/// @file
/// EROFS_OCI_BODY: whether function bodies come with the headers or from the compiled library.
#pragma once

/// The specifier of a function that its header only declares, at its definition in
/// `detail/NAME_body.hpp`.
///
/// By default the header includes that file, and the function is inline. With EROFS_OCI_COMPILED,
/// which the CMake target erofs_oci::compiled defines, it does not: the bodies, and the libraries
/// that only they need, are compiled once into that target. All units of a program must agree.
#ifdef EROFS_OCI_COMPILED
#define EROFS_OCI_BODY
#else
#define EROFS_OCI_BODY inline
#endif
