# What `cmake --install` puts where. Component erofs_oci-dev: headers, the CMake package and the
# pkg-config files, all of them without machine code; component erofs_oci-compiled: the library that
# erofs_oci::compiled is; component mount-oci: the tool.
include(CMakePackageConfigHelpers)
set(erofs_oci_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/erofs_oci)
set(erofs_oci_pc_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

function(erofs_oci_pc name description requires libs cflags)
  list(JOIN requires ", " requires)
  configure_file(cmake/erofs_oci.pc.in erofs_oci/${name}.pc @ONLY)
  install(
    FILES ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/${name}.pc
    DESTINATION ${erofs_oci_pc_dir}
    COMPONENT erofs_oci-dev)
endfunction()

set(erofs_oci_below)
foreach(name IN LISTS erofs_oci_components)
  install(
    TARGETS erofs_oci_${name}
    EXPORT erofs_oci-${name}
    FILE_SET HEADERS
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    COMPONENT erofs_oci-dev
    FILE_SET bodies
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    COMPONENT erofs_oci-dev)
  install(
    EXPORT erofs_oci-${name}
    FILE erofs_oci-${name}-targets.cmake
    NAMESPACE erofs_oci::
    DESTINATION ${erofs_oci_cmake_dir}
    COMPONENT erofs_oci-dev)

  get_property(below TARGET erofs_oci_${name} PROPERTY erofs_oci_below)
  list(JOIN below " " below)
  string(APPEND erofs_oci_below "set(_erofs_oci_below_${name} ${below})\n")

  get_property(requires TARGET erofs_oci_${name} PROPERTY erofs_oci_requires)
  set(libs)
  set(cflags)
  if(name STREQUAL core)
    set(libs -pthread)
    set(cflags " -pthread")
  elseif(name STREQUAL testing)
    set(libs -lrapidcheck)
  elseif(name STREQUAL gzip AND isal_FOUND)
    set(cflags " -DEROFS_OCI_HAVE_ISAL=1")
  elseif(name STREQUAL host AND libcryptsetup_FOUND)
    set(cflags " -DEROFS_OCI_HAVE_CRYPTSETUP=1")
  endif()
  erofs_oci_pc(erofs_oci-${name} "erofs_oci, component ${name}" "${requires}" "${libs}" "${cflags}")
endforeach()

list(TRANSFORM erofs_oci_in_umbrella PREPEND erofs_oci- OUTPUT_VARIABLE requires)
erofs_oci_pc(erofs_oci "${PROJECT_DESCRIPTION}" "${requires}" "" "")

install(
  TARGETS erofs_oci
  FILE_SET HEADERS
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT erofs_oci-dev)

if(EROFS_OCI_BUILD_COMPILED)
  install(
    TARGETS erofs_oci_compiled
    EXPORT erofs_oci-compiled
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    COMPONENT erofs_oci-compiled)
  install(
    EXPORT erofs_oci-compiled
    FILE erofs_oci-compiled-targets.cmake
    NAMESPACE erofs_oci::
    DESTINATION ${erofs_oci_cmake_dir}
    COMPONENT erofs_oci-compiled)
endif()
list(JOIN erofs_oci_in_umbrella " " below)
string(APPEND erofs_oci_below "set(_erofs_oci_below_compiled ${below})\n")

configure_package_config_file(
  cmake/erofs_oci-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config.cmake
  INSTALL_DESTINATION ${erofs_oci_cmake_dir}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
  ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config-version.cmake
  COMPATIBILITY SameMinorVersion
  ARCH_INDEPENDENT)
install(
  FILES ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config.cmake
        ${CMAKE_CURRENT_BINARY_DIR}/erofs_oci/erofs_oci-config-version.cmake
  DESTINATION ${erofs_oci_cmake_dir}
  COMPONENT erofs_oci-dev)
set(doc_dir ${CMAKE_INSTALL_DATADIR}/doc/erofs-oci-dev)
install(FILES debian/copyright doc/design.md doc/glossary.md DESTINATION ${doc_dir} COMPONENT erofs_oci-dev)
install(DIRECTORY doc/formats DESTINATION ${doc_dir} COMPONENT erofs_oci-dev)
