// SPDX-License-Identifier: Apache-2.0
/// @file
/// libfuse's low-level interface, at the version that we are written for.
#pragma once

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 35
#endif

#include <fuse3/fuse_lowlevel.h>
