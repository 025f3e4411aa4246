# The library's targets: one INTERFACE component a folder of include/erofs_oci, each with its headers
# as a file set and the one or two libraries that it needs. erofs_oci::erofs_oci links all of them.
# A component whose library is missing, or older than Debian 12's, is left out, and said so; only core
# is a must. erofs_oci::compiled is for those who compile the function bodies once: below.
include(GNUInstallDirs)

set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)  # a project that adds us with add_subdirectory sees them too
find_package(tl-expected 1.0 REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB 1.2.13)
find_package(OpenSSL 3.0)
find_package(nlohmann_json 3.11)
find_package(range-v3)  # its package accepts no version but its own in full
find_package(rapidcheck QUIET)
find_package(PkgConfig)
if(PkgConfig_FOUND)
  pkg_check_modules(httplib IMPORTED_TARGET GLOBAL cpp-httplib>=0.11)
  pkg_check_modules(libnl_genl IMPORTED_TARGET GLOBAL libnl-genl-3.0>=3.7)
  pkg_check_modules(isal IMPORTED_TARGET GLOBAL libisal>=2.30)
  pkg_check_modules(tomlplusplus IMPORTED_TARGET GLOBAL tomlplusplus>=3.3)
  pkg_check_modules(fuse3 IMPORTED_TARGET GLOBAL fuse3>=3.14)
  if(EROFS_OCI_CRYPTSETUP STREQUAL "OFF")
    unset(libcryptsetup_FOUND CACHE)  # of an earlier run with another setting
  else()
    pkg_check_modules(libcryptsetup IMPORTED_TARGET GLOBAL libcryptsetup>=2.4)
  endif()
endif()
unset(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL)
if(EROFS_OCI_CRYPTSETUP STREQUAL "ON" AND NOT libcryptsetup_FOUND)
  message(FATAL_ERROR "EROFS_OCI_CRYPTSETUP=ON: libcryptsetup 2.4 is missing (Debian: libcryptsetup-dev)")
endif()

set(erofs_oci_include ${CMAKE_CURRENT_SOURCE_DIR}/include)
set(erofs_oci_components)
set(erofs_oci_bodies)
add_library(erofs_oci INTERFACE)
add_library(erofs_oci::erofs_oci ALIAS erofs_oci)

# erofs_oci_component(NAME [FOLDERS folder...] [FILES header...] [WITHOUT header...] [LINK library...]
#                     [REQUIRES pkg-config package...])
#
# REQUIRES is LINK in pkg-config's words, without our own components: those are taken from LINK.
function(erofs_oci_component name)
  cmake_parse_arguments(arg "" "" "FOLDERS;FILES;WITHOUT;LINK;REQUIRES" ${ARGN})
  foreach(library IN LISTS arg_LINK)
    if(NOT TARGET ${library})
      message(STATUS "erofs_oci: no component ${name}, for there is no ${library}")
      return()
    endif()
  endforeach()

  set(headers)
  foreach(folder IN LISTS arg_FOLDERS)
    file(GLOB found CONFIGURE_DEPENDS ${erofs_oci_include}/erofs_oci/${folder}/*.hpp
         ${erofs_oci_include}/erofs_oci/${folder}/detail/*.hpp)
    list(APPEND headers ${found})
  endforeach()
  list(TRANSFORM arg_FILES PREPEND ${erofs_oci_include}/erofs_oci/)
  list(TRANSFORM arg_WITHOUT PREPEND ${erofs_oci_include}/erofs_oci/)
  list(APPEND headers ${arg_FILES})
  if(arg_WITHOUT)
    list(REMOVE_ITEM headers ${arg_WITHOUT})
  endif()
  if(NOT headers)
    return()  # a component is born with its first header
  endif()
  set(bodies ${headers})  # of functions that headers only declare; they are no interface
  list(FILTER bodies INCLUDE REGEX "/detail/[a-z0-9_]+_body\\.hpp$")
  list(FILTER headers EXCLUDE REGEX "/detail/[a-z0-9_]+_body\\.hpp$")

  add_library(erofs_oci_${name} INTERFACE)
  add_library(erofs_oci::${name} ALIAS erofs_oci_${name})
  target_sources(
    erofs_oci_${name}
    INTERFACE FILE_SET HEADERS
              BASE_DIRS ${erofs_oci_include}
              FILES ${headers}
              FILE_SET bodies
              TYPE HEADERS
              BASE_DIRS ${erofs_oci_include}
              FILES ${bodies})
  target_compile_features(erofs_oci_${name} INTERFACE cxx_std_20)
  target_link_libraries(erofs_oci_${name} INTERFACE ${arg_LINK})
  set_target_properties(
    erofs_oci_${name} PROPERTIES EXPORT_NAME ${name} INTERFACE_HEADER_SETS_TO_VERIFY HEADERS
                                                     VERIFY_INTERFACE_HEADER_SETS
                                                     ${PROJECT_IS_TOP_LEVEL})
  if(NOT name STREQUAL testing)  # for tests of sources; whoever wants it says so
    target_link_libraries(erofs_oci INTERFACE erofs_oci_${name})
  endif()

  set(requires ${arg_REQUIRES})
  set(below)  # all components under this one, each behind those under it
  foreach(library IN LISTS arg_LINK)
    if(library MATCHES "^erofs_oci_(.+)$")
      list(APPEND requires erofs_oci-${CMAKE_MATCH_1})
      get_property(further TARGET ${library} PROPERTY erofs_oci_below)
      list(APPEND below ${further} ${CMAKE_MATCH_1})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES below)
  set_property(TARGET erofs_oci_${name} PROPERTY erofs_oci_requires ${requires})
  set_property(TARGET erofs_oci_${name} PROPERTY erofs_oci_below ${below})
  set(erofs_oci_components ${erofs_oci_components} ${name} PARENT_SCOPE)
  set(erofs_oci_bodies ${erofs_oci_bodies} ${bodies} PARENT_SCOPE)
endfunction()

# digest/digest.hpp needs no library and names what combinator/ checks, so it belongs to core.
erofs_oci_component(
  core
  FOLDERS core posix source combinator
  FILES version.hpp digest/digest.hpp
  LINK tl::expected Threads::Threads)
if(isal_FOUND)
  erofs_oci_component(
    gzip
    FOLDERS gzip
    LINK erofs_oci_core ZLIB::ZLIB PkgConfig::isal
    REQUIRES "zlib >= 1.2.13" "libisal >= 2.30")
  if(TARGET erofs_oci_gzip)
    target_compile_definitions(erofs_oci_gzip INTERFACE EROFS_OCI_HAVE_ISAL=1)
  endif()
else()
  erofs_oci_component(
    gzip
    FOLDERS gzip
    WITHOUT gzip/isal_inflater.hpp
    LINK erofs_oci_core ZLIB::ZLIB
    REQUIRES "zlib >= 1.2.13")
endif()
erofs_oci_component(
  digest
  FOLDERS digest
  WITHOUT digest/digest.hpp
  LINK erofs_oci_core OpenSSL::Crypto
  REQUIRES "libcrypto >= 3.0")
erofs_oci_component(cache FOLDERS cache LINK erofs_oci_digest)
erofs_oci_component(erofs FOLDERS erofs LINK erofs_oci_core)
erofs_oci_component(tar FOLDERS tar LINK erofs_oci_core)
erofs_oci_component(
  tarindex
  FOLDERS tarindex
  LINK erofs_oci_digest erofs_oci_erofs erofs_oci_gzip erofs_oci_tar range-v3::range-v3)
erofs_oci_component(
  oci
  FOLDERS oci
  LINK erofs_oci_digest nlohmann_json::nlohmann_json range-v3::range-v3 PkgConfig::tomlplusplus
  REQUIRES "nlohmann_json >= 3.11" "tomlplusplus >= 3.3")
erofs_oci_component(image FOLDERS image LINK erofs_oci_oci erofs_oci_tarindex)
erofs_oci_component(
  http
  FOLDERS http
  LINK erofs_oci_oci PkgConfig::httplib OpenSSL::SSL
  REQUIRES "cpp-httplib >= 0.11" "libssl >= 3.0")
erofs_oci_component(
  nbd
  FOLDERS nbd
  LINK erofs_oci_core PkgConfig::libnl_genl
  REQUIRES "libnl-genl-3.0 >= 3.7")
if(libcryptsetup_FOUND)
  erofs_oci_component(
    host
    FOLDERS host
    LINK erofs_oci_core PkgConfig::libcryptsetup
    REQUIRES "libcryptsetup >= 2.4")
  target_compile_definitions(erofs_oci_host INTERFACE EROFS_OCI_HAVE_CRYPTSETUP=1)
else()
  erofs_oci_component(host FOLDERS host LINK erofs_oci_core)
endif()
erofs_oci_component(
  fuse
  FOLDERS fuse
  LINK erofs_oci_erofs erofs_oci_host PkgConfig::fuse3
  REQUIRES "fuse3 >= 3.14")
erofs_oci_component(recovery FOLDERS recovery LINK erofs_oci_digest)
erofs_oci_component(
  mount
  FOLDERS mount
  LINK erofs_oci_fuse erofs_oci_nbd erofs_oci_recovery)
erofs_oci_component(testing FOLDERS testing LINK erofs_oci_image rapidcheck)

# all.hpp needs every component, so it is the umbrella's.
target_sources(
  erofs_oci
  INTERFACE FILE_SET HEADERS
            BASE_DIRS ${erofs_oci_include}
            FILES ${erofs_oci_include}/erofs_oci/all.hpp)
set_target_properties(erofs_oci PROPERTIES VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})

# The same headers, of which the dearest only declare: what they leave out is compiled here, once, a unit
# a folder. Whoever links erofs_oci::compiled in place of erofs_oci::erofs_oci compiles less; all units of
# a program have to agree on it.
set(units)
foreach(body IN LISTS erofs_oci_bodies)
  cmake_path(RELATIVE_PATH body BASE_DIRECTORY ${erofs_oci_include} OUTPUT_VARIABLE name)
  string(REGEX REPLACE "^erofs_oci/([a-z]+)/.*" "\\1" folder ${name})
  string(APPEND unit_of_${folder} "#include <${name}>\n")
  list(APPEND units ${folder})
endforeach()
list(REMOVE_DUPLICATES units)
list(TRANSFORM units REPLACE "(.+)" "${CMAKE_CURRENT_BINARY_DIR}/compiled/\\1.cpp" OUTPUT_VARIABLE sources)
foreach(folder IN LISTS units)
  file(CONFIGURE OUTPUT compiled/${folder}.cpp CONTENT "${unit_of_${folder}}" @ONLY)
endforeach()
set(erofs_oci_in_umbrella ${erofs_oci_components})
list(REMOVE_ITEM erofs_oci_in_umbrella testing)
add_library(erofs_oci_compiled STATIC ${sources})
add_library(erofs_oci::compiled ALIAS erofs_oci_compiled)
list(TRANSFORM erofs_oci_in_umbrella PREPEND erofs_oci_ OUTPUT_VARIABLE libraries)
target_link_libraries(erofs_oci_compiled PUBLIC ${libraries})
target_compile_definitions(erofs_oci_compiled PUBLIC EROFS_OCI_COMPILED)
set_target_properties(
  erofs_oci_compiled
  PROPERTIES EXPORT_NAME compiled CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
if(NOT EROFS_OCI_BUILD_COMPILED)
  set_target_properties(erofs_oci_compiled PROPERTIES EXCLUDE_FROM_ALL ON)
endif()

if(EROFS_OCI_INSTALL)
  include(cmake/install.cmake)
endif()
